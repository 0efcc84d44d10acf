//! Values of a record as transformers gives them to a template.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Error, State, Value};

use super::jinja;

/// The fields of an object, as a template is to be given them.
pub(in crate::data) fn pairs(object: &Value) -> impl Iterator<Item = (String, Value)> + use<'_> {
    let keys = object.try_iter().into_iter().flatten();
    keys.map(|key| {
        let value = object.get_item(&key).unwrap_or_default();
        (key.to_string(), given(&value))
    })
}

/// A value of a record as a template is given it: objects are Python's dicts.
pub(in crate::data) fn given(value: &Value) -> Value {
    match value.kind() {
        ValueKind::Map if value.downcast_object_ref::<Dict>().is_none() => {
            Value::from_object(Dict(Value::from_pairs(pairs(value))))
        }
        ValueKind::Seq => {
            let items = value.try_iter().into_iter().flatten();
            Value::from(items.map(|item| given(&item)).collect::<Vec<_>>())
        }
        _ => value.clone(),
    }
}

/// A dict whose methods go before its keys: `schema.items()` are its pairs, though it has a key `items`.
#[derive(Debug)]
pub(super) struct Dict(pub Value);

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let found = self.0.get_item(key).ok()?;
        (!found.is_undefined()).then_some(found)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let keys = self.0.try_iter().into_iter().flatten();
        Enumerator::Values(keys.collect())
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        jinja::of_dict(&self.0, method, args)
    }
}
