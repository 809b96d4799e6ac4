"""Holds an OpenAPI document against what strangers' tools need of it.

    check.py FILE

Every reference leads somewhere; the document is OpenAPI 3.1; every example is what its schema says, without
a property that the schema does not know; no answer that is typed is an object of which nothing is said.
"""

import json
import sys

from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

ROOT = "urn:document"


def nodes(value, at=""):
    """Every object and list of the document, with its JSON Pointer."""
    yield at, value
    if isinstance(value, dict):
        for key, below in value.items():
            yield from nodes(below, f"{at}/{key.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from nodes(below, f"{at}/{index}")


def is_example(at):
    return any(part in ("example", "examples") for part in at.split("/"))


def lookup(document, reference):
    value = document
    for part in reference.removeprefix("#/").split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        value = value[int(name) if isinstance(value, list) else name]
    return value


def references(document):
    """Each reference that leads nowhere."""
    for at, value in nodes(document):
        if is_example(at) or not isinstance(value, dict) or not isinstance(value.get("$ref"), str):
            continue
        try:
            lookup(document, value["$ref"])
        except (KeyError, IndexError, ValueError, TypeError):
            yield f"{at}: `{value['$ref']}` leads nowhere"


def targets(document):
    """Each schema with the examples that are meant for it."""
    for at, value in nodes(document):
        if is_example(at) or not isinstance(value, dict):
            continue
        # A parameter, a media type or a header; else a schema.
        if isinstance(value.get("schema"), dict):
            schema = f"{at}/schema"
        elif at.startswith("/components/schemas/") or "/schema" in at:
            schema = at
        else:
            continue
        if "example" in value and not at.endswith("/properties"):
            yield schema, value["example"]
        examples = value.get("examples")
        if isinstance(examples, list):
            for example in examples:
                yield schema, example
        elif isinstance(examples, dict) and schema != at:
            for example in examples.values():
                yield schema, example["value"]


def unknown(document, schema, value, at):
    """Properties of an example that its schema does not know, where the schema is not open."""
    if isinstance(schema, dict) and "$ref" in schema:
        schema = lookup(document, schema["$ref"])
    if not isinstance(schema, dict):
        return
    for key in ("oneOf", "anyOf"):
        if key in schema:
            found = [list(unknown(document, one, value, at)) for one in schema[key]]
            yield from min(found, key=len, default=[])
            return
    if isinstance(value, dict) and "properties" in schema and "additionalProperties" not in schema:
        for name in value.keys() - schema["properties"].keys():
            yield f"{at}/{name}: the schema knows no such property"
    if isinstance(value, dict):
        for name, below in value.items():
            yield from unknown(document, schema.get("properties", {}).get(name), below, f"{at}/{name}")
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from unknown(document, schema.get("items"), below, f"{at}/{index}")


def examples(document):
    """Each example that is not what its schema says."""
    resource = Resource.from_contents(document, default_specification=DRAFT202012)
    registry = Registry().with_resource(ROOT, resource)
    count = 0
    for at, example in targets(document):
        count += 1
        pointer = at.replace("{", "%7B").replace("}", "%7D")
        checker = Draft202012Validator(
            {"$ref": f"{ROOT}#{pointer}"},
            registry=registry,
            format_checker=Draft202012Validator.FORMAT_CHECKER,
        )
        for error in checker.iter_errors(example):
            yield f"{at}: {error.json_path}: {error.message}"
        for fault in unknown(document, lookup(document, f"#{at}"), example, "$"):
            yield f"{at}: {fault}"
    if count < 100:
        yield f"only {count} examples were found: this check looks in the wrong places"


def bare(document):
    for at, value in nodes(document):
        if is_example(at) or not isinstance(value, dict) or value.get("type") != "object":
            continue
        if "properties" not in value and "additionalProperties" not in value:
            yield f"{at}: nothing is said of the object"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        document = json.load(file)
    # Where a reference leads nowhere, nothing else can be looked at.
    faults = list(references(document)) or [*examples(document), *bare(document)]
    if faults:
        sys.exit("\n".join(faults))
    validate(document)


main()
