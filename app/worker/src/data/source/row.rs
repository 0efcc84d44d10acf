//! A row of Parquet as values.

use ::parquet::record::{Field, Row};
use minijinja::Value as Ordered;
use minijinja::value::Serde;
use serde_json::{Map, Value};

/// Its columns by their names.
pub(super) fn object(row: &Row) -> Map<String, Value> {
    let columns = row.get_column_iter();
    columns
        .map(|(name, field)| (name.clone(), value(field)))
        .collect()
}

/// Texts, numbers, lists and groups; what no dataset here is made of becomes the text it shows.
fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(v) => (*v).into(),
        Field::Byte(v) => (*v).into(),
        Field::Short(v) => (*v).into(),
        Field::Int(v) => (*v).into(),
        Field::Long(v) => (*v).into(),
        Field::UByte(v) => (*v).into(),
        Field::UShort(v) => (*v).into(),
        Field::UInt(v) => (*v).into(),
        Field::ULong(v) => (*v).into(),
        Field::Float(v) => (*v).into(),
        Field::Double(v) => (*v).into(),
        Field::Str(v) => v.as_str().into(),
        Field::Bytes(v) => match v.as_utf8() {
            Ok(text) => text.into(),
            Err(_) => field.to_string().into(),
        },
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        Field::Group(row) => object(row).into(),
        other => other.to_string().into(),
    }
}

/// A row whose columns, and the groups in it, keep their order.
pub(super) fn ordered_object(row: &Row) -> Ordered {
    let columns = row.get_column_iter();
    Ordered::from_pairs(columns.map(|(name, field)| (name.as_str(), ordered(field))))
}

fn ordered(field: &Field) -> Ordered {
    match field {
        Field::ListInternal(list) => {
            Ordered::from(list.elements().iter().map(ordered).collect::<Vec<_>>())
        }
        Field::Group(row) => ordered_object(row),
        flat => Ordered::from(Serde(value(flat))),
    }
}
