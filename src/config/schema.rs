//! The tables of `keys` as a JSON schema, for editors that know TOML.

use crate::config::keys;
use crate::config::keys::Key;
use crate::config::keys::Shape;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

/// Returns the schema.
pub fn schema() -> Value {
    let mut schema = table(keys::FILE);
    if let Value::Object(object) = &mut schema {
        object.insert(
            "$schema".into(),
            "https://json-schema.org/draft/2020-12/schema".into(),
        );
        object.insert("title".into(), "Configuration of statekeep".into());
    }
    schema
}

fn table(keys: &[Key]) -> Value {
    let shown = keys
        .iter()
        .filter(|key| !matches!(key.shape, Shape::Forbidden(_)));
    let mut properties = Map::new();
    for key in shown {
        let mut schema = shape(key.shape);
        if let Value::Object(object) = &mut schema {
            object.insert("description".into(), key.about.into());
        }
        properties.insert(key.name.into(), schema);
    }
    let required = keys
        .iter()
        .filter(|key| key.is_required)
        .map(|key| key.name);
    json!({
        "type": "object",
        "properties": properties,
        "required": required.collect::<Vec<_>>(),
        "additionalProperties": false,
    })
}

fn shape(shape: Shape) -> Value {
    let text = || json!({ "type": "string", "minLength": 1 });
    let list = |items: Value| json!({ "type": "array", "items": items });
    let argv = || json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 });
    match shape {
        Shape::Version => json!({ "const": 1 }),
        Shape::Text | Shape::Url | Shape::Path | Shape::Schedule | Shape::Forbidden(_) => text(),
        Shape::Endpoint => json!({
            "type": "string", "pattern": "^https?://", "maxLength": 2048,
        }),
        Shape::Header => json!({ "type": "string", "pattern": "^[A-Za-z0-9-]+$" }),
        Shape::Choices(choices) => list(json!({ "enum": choices })),
        Shape::Duration => json!({
            "type": "string",
            "pattern": "^\\s*([0-9]+[ywdhms]\\s*)+$",
        }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Count => json!({ "type": "integer", "minimum": 1, "maximum": u32::MAX }),
        Shape::UpTo(most) => json!({ "type": "integer", "minimum": 1, "maximum": most }),
        Shape::Argv => argv(),
        Shape::Argvs => list(argv()),
        Shape::Patterns | Shape::Rules | Shape::Tags => list(text()),
        Shape::Choice(choices) => json!({ "enum": choices }),
        Shape::Table(keys) => table(keys),
        Shape::Named(keys) => json!({
            "type": "object",
            "propertyNames": { "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]*$", "maxLength": 64 },
            "additionalProperties": table(keys),
        }),
        Shape::Tables(keys) => list(table(keys)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_every_key_and_none_that_is_refused() {
        let schema = schema();

        let profile = &schema["properties"]["profile"]["additionalProperties"];
        assert_eq!(profile["required"], json!(["root"]));
        assert_eq!(profile["additionalProperties"], false);
        assert_eq!(
            profile["properties"]["keep"]["properties"]["daily"]["minimum"],
            1
        );
        assert_eq!(schema["required"], json!(["version"]));
        let defaults = schema["properties"]["defaults"]["properties"]
            .as_object()
            .unwrap();
        assert!(defaults.contains_key("schedule") && !defaults.contains_key("root"));
        let repo = &schema["properties"]["repo"]["additionalProperties"]["properties"];
        assert!(repo.get("password-file").is_some() && repo.get("password").is_none());
    }
}
