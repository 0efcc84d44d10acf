//! What a template binds to a name: how deeply it may nest, and sums of lists made into lists.
//!
//! minijinja keeps a sum of lists as its parts, and walks through each of them at every use: of a list that is added
//! to itself n times, 2ⁿ, none of which costs fuel where it is empty.

use minijinja::value::{Tuple, ValueKind, ValueOrKwargs};
use minijinja::{Error, State, Value, functions};

use super::limits::DEPTH;
use super::{python, wrong};
use crate::data::chat::given::Dict;

/// What a template stores, `whole` as a variable, else in a namespace, which outlasts a loop: the same value, unless
/// lists in it nest deeper and deeper, or a namespace is to hold one, which could be itself.
pub(super) fn stored(state: &mut State, value: Value, whole: bool) -> Result<Value, Error> {
    let summed = summed(state, &value, 0, whole)?;
    Ok(summed.unwrap_or(value))
}

/// A namespace of what is given.
pub(super) fn namespace(state: &mut State, given: Option<ValueOrKwargs>) -> Result<Value, Error> {
    let given = given.map(|given| stored(state, given.into_value(), true));
    functions::namespace(given.transpose()?.map(ValueOrKwargs::from))
}

/// A value with the sums of lists in it made into lists; `None` where there are none.
fn summed(
    state: &mut State,
    value: &Value,
    depth: usize,
    whole: bool,
) -> Result<Option<Value>, Error> {
    let object = value.as_object();
    let is_namespace = object.is_some_and(|object| object.type_name().ends_with("Namespace"));
    if depth > DEPTH || (is_namespace && !whole) {
        return Err(wrong(
            "what it stores is nested too deeply, or is a namespace in another",
        ));
    }
    let is_dict = value.downcast_object_ref::<Dict>().is_some();
    let (keys, items): (Vec<Value>, Vec<Value>) = match python::kind(value) {
        ValueKind::Seq => (Vec::new(), value.try_iter()?.collect()),
        // Namespaces were looked at when they were made.
        ValueKind::Map if !is_namespace => {
            let pairs = value.try_iter()?.map(|key| {
                let item = value.get_item(&key)?;
                Ok((key, item))
            });
            pairs.collect::<Result<_, Error>>()?
        }
        _ => return Ok(None),
    };
    state.consume_fuel(items.len().div_ceil(16) as u64)?;
    let is_plain = value.is_tuple() || value.downcast_object_ref::<Vec<Value>>().is_some();
    let mut changed = keys.is_empty() && value.kind() != ValueKind::Map && !is_plain;
    let mut new = Vec::with_capacity(items.len());
    for item in items {
        let item = match summed(state, &item, depth + 1, whole)? {
            Some(summed) => {
                changed = true;
                summed
            }
            None => item,
        };
        new.push(item);
    }
    if !changed {
        return Ok(None);
    }
    let pairs = |new| Value::from_pairs(keys.into_iter().zip(new));
    Ok(Some(match value.kind() {
        ValueKind::Map if is_dict => Value::from_object(Dict(pairs(new))),
        ValueKind::Map => pairs(new),
        _ if value.is_tuple() => Value::from(Tuple::from(new)),
        _ => Value::from(new),
    }))
}
