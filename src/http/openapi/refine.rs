//! What the generator leaves open, said for every operation and every schema alike, so that no handler
//! has to remember: who needs no key, what parameters take, and what an answer never holds.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::parameters::{bounds, bounds_of};

const SCHEMAS: &str = "#/components/schemas/";
/// The methods of a path; what else is beside them is no operation.
const METHODS: [&str; 5] = ["get", "put", "post", "patch", "delete"];

/// Completes the generated document.
pub(super) fn refine(document: &mut Value) {
    operations(document, |operation| {
        // Without it, tools take what the whole document says.
        operation.entry("security").or_insert_with(|| json!([]));
        let id =
            operation.get("operationId").and_then(Value::as_str).unwrap_or_default().to_owned();
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        for parameter in parameters.into_iter().flatten().filter_map(Value::as_object_mut) {
            parameter_of(&id, parameter);
        }
    });
    open_objects(document);
    let asked = reachable_from_requests(document);
    let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut)
    else {
        return;
    };
    for (name, schema) in schemas.iter_mut() {
        constants(schema);
        // A request may say `null` for what it leaves out; an answer leaves it out.
        if !asked.contains(name) {
            absent_rather_than_null(schema);
        }
    }
    name_variants(schemas);
}

/// Does `work` for each operation.
pub(super) fn operations(document: &mut Value, mut work: impl FnMut(&mut Map<String, Value>)) {
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for methods in paths.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        for method in METHODS {
            if let Some(operation) = methods.get_mut(method).and_then(Value::as_object_mut) {
                work(operation);
            }
        }
    }
}

fn parameter_of(operation: &str, parameter: &mut Map<String, Value>) {
    let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_required = parameter.get("required") == Some(&Value::Bool(true));
    // What is offered for an optional parameter is not sent unless somebody chooses it.
    let offered = if is_required { None } else { parameter.remove("example") };
    let Some(schema) = parameter.get_mut("schema").and_then(Value::as_object_mut) else { return };
    without_null(schema);
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or_default();
    let known = [bounds_of(operation, &name), bounds(&name, kind)];
    for (key, value) in known.iter().filter_map(Value::as_object).flatten() {
        schema.entry(key).or_insert_with(|| value.clone());
    }
    if let Some(offered) = offered {
        schema.insert("examples".to_owned(), json!([offered]));
    }
}

/// Takes `null` out of what a schema allows.
fn without_null(schema: &mut Map<String, Value>) {
    if let Some(kinds) = schema.get_mut("type").and_then(Value::as_array_mut) {
        kinds.retain(|kind| kind != "null");
        if let [one] = kinds.as_slice() {
            let one = one.clone();
            schema.insert("type".to_owned(), one);
        }
    }
    let Some(some) = schema.get_mut("oneOf").and_then(Value::as_array_mut) else { return };
    some.retain(|one| *one != json!({ "type": "null" }));
    if let [Value::Object(one)] = some.as_slice() {
        let one = one.clone();
        schema.remove("oneOf");
        schema.extend(one);
    }
}

/// An object of which nothing is said may hold anything; some generators take it for an empty one.
fn open_objects(value: &mut Value) {
    match value {
        Value::Object(object) => {
            let is_bare = object.get("type") == Some(&json!("object"))
                && !["properties", "additionalProperties"]
                    .iter()
                    .any(|key| object.contains_key(*key));
            if is_bare {
                object.insert("additionalProperties".to_owned(), json!(true));
            }
            object.values_mut().for_each(open_objects);
        }
        Value::Array(items) => items.iter_mut().for_each(open_objects),
        _ => {}
    }
}

/// The names of the schemas that a request can hold.
fn reachable_from_requests(document: &mut Value) -> BTreeSet<String> {
    let mut open: Vec<String> = Vec::new();
    operations(document, |operation| {
        operation.get("requestBody").into_iter().for_each(|body| refer(body, &mut open));
    });
    let mut reached = BTreeSet::new();
    while let Some(name) = open.pop() {
        if let Some(schema) = document.pointer(&format!("/components/schemas/{name}"))
            && reached.insert(name)
        {
            refer(schema, &mut open);
        }
    }
    reached
}

/// Adds the names of the schemas to which `value` refers.
fn refer(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            let name = object.get("$ref").and_then(Value::as_str);
            names.extend(name.and_then(|name| name.strip_prefix(SCHEMAS)).map(str::to_owned));
            object.values().for_each(|value| refer(value, names));
        }
        Value::Array(items) => items.iter().for_each(|value| refer(value, names)),
        _ => {}
    }
}

/// An enumeration of one word is a constant, which generators need no type for.
fn constants(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let one = object.get("enum").and_then(Value::as_array);
            if let Some([one]) = one.map(Vec::as_slice) {
                let one = one.clone();
                object.remove("enum");
                object.insert("const".to_owned(), one);
            }
            object.values_mut().for_each(constants);
        }
        Value::Array(items) => items.iter_mut().for_each(constants),
        _ => {}
    }
}

fn absent_rather_than_null(schema: &mut Value) {
    let required: BTreeSet<String> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (name, property) in properties.into_iter().flatten() {
        if let Some(property) = property.as_object_mut().filter(|_| !required.contains(name)) {
            without_null(property);
        }
    }
}

/// Variants that a constant tells apart become schemas of their own: `InstrumentChange`, not `Change0`.
fn name_variants(schemas: &mut Map<String, Value>) {
    let mut named = Map::new();
    for (name, schema) in schemas.iter_mut() {
        let Some(schema) = schema.as_object_mut() else { continue };
        let Some(variants) = schema.get_mut("oneOf").and_then(Value::as_array_mut) else {
            continue;
        };
        let Some(tags) = variants.iter().map(tag).collect::<Option<Vec<_>>>() else { continue };
        let Some((property, _)) = tags.first().cloned() else { continue };
        if tags.iter().any(|(other, _)| *other != property) {
            continue;
        }
        let mut mapping = Map::new();
        for (variant, (_, word)) in variants.iter_mut().zip(tags) {
            let own = format!("{}{name}", pascal(&word));
            let reference = format!("{SCHEMAS}{own}");
            let described = std::mem::replace(variant, json!({ "$ref": reference }));
            named.insert(own, described);
            mapping.insert(word, reference.into());
        }
        let discriminator = json!({ "propertyName": property, "mapping": mapping });
        schema.insert("discriminator".to_owned(), discriminator);
    }
    for (name, schema) in named {
        schemas.entry(name).or_insert(schema);
    }
}

/// The property that is a constant, with its word.
fn tag(variant: &Value) -> Option<(String, String)> {
    let properties = variant.get("properties")?.as_object()?;
    properties.iter().find_map(|(name, property)| {
        Some((name.clone(), property.get("const")?.as_str()?.to_owned()))
    })
}

fn pascal(word: &str) -> String {
    let mut upper = true;
    let mut name = String::new();
    for letter in word.chars() {
        if letter == '_' {
            upper = true;
        } else if std::mem::take(&mut upper) {
            name.extend(letter.to_uppercase());
        } else {
            name.push(letter);
        }
    }
    name
}
