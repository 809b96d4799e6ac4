//! A body held against the table, object by object.

use super::{
    super::{
        FieldFault,
        json::{Member, each_item, members},
    },
    NeededPass, RefusedBody,
    fold::fold,
    references::references,
    table::{FETCHED, Kind, Need, Rule, Table, Tag, join},
};

/// How deep objects that are looked into may lie in each other.
const DEEPEST: usize = 16;
/// How many passes one call may need.
const MOST_NEEDED: usize = 64;
/// How long the name of a pass may be.
const LONGEST_NAME: usize = 128;
/// Why what is not in the table needs a pass.
const UNKNOWN: &str = "nothing is known of what a backend does with it";
/// Why what refers to something at the provider needs one.
const KEPT: &str = "it opens what the provider keeps";

type Walked<T = ()> = Result<T, RefusedBody>;

/// What was found of a body so far.
pub(super) struct Walk<'t> {
    table: &'t Table,
    pub(super) needed: Vec<NeededPass>,
    pointer: String,
}

/// Whether `field` can be the name of a pass, which records and files hold.
pub(super) fn is_plain(field: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.=:".contains(&byte);
    (1..=LONGEST_NAME).contains(&field.len()) && field.bytes().all(plain)
}

impl<'t> Walk<'t> {
    pub(super) const fn of(table: &'t Table) -> Self {
        Self { table, needed: Vec::new(), pointer: String::new() }
    }

    /// Walks through the body of a request to the API `root`.
    pub(super) fn body(&mut self, root: &str, members: &[Member<'_>]) -> Walked {
        let kind = self.kind(root)?;
        self.object(kind, members, "", 0)
    }

    /// Looks at the values of a header.
    pub(super) fn header<'a>(
        &mut self,
        name: &str,
        values: impl Iterator<Item = &'a str>,
    ) -> Walked {
        let stays = self.table.headers.get(name).map(|header| &header.stays);
        name.clone_into(&mut self.pointer);
        for value in values.flat_map(|value| value.split(',')) {
            let value = value.trim();
            if value.is_empty() || stays.is_some_and(|stays| stays.contains(value)) {
                continue;
            }
            let why = "it is not among the betas that stay within a call";
            self.need(&join(name, value), why, false)?;
        }
        Ok(())
    }

    fn kind(&self, name: &str) -> Walked<&'t Kind> {
        self.table
            .kinds
            .get(name)
            .ok_or_else(|| self.refused(format!("nothing is known of `{name}`")))
    }

    fn refused(&self, detail: impl Into<String>) -> RefusedBody {
        RefusedBody(FieldFault::new(self.pointer.clone(), detail))
    }

    /// Goes to a member of where it is; gives the way back.
    fn enter(&mut self, name: &str) -> usize {
        let back = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
        back
    }

    fn leave(&mut self, back: usize) {
        self.pointer.truncate(back);
    }

    fn need(&mut self, field: &str, why: &str, is_reference: bool) -> Walked {
        if !is_plain(field) {
            let detail =
                format!("it is not known, and cannot be passed on: {UNKNOWN}; leave it out");
            return Err(self.refused(detail));
        }
        if self.needed.iter().any(|needed| needed.field == field) {
            return Ok(());
        }
        if self.needed.len() == MOST_NEEDED {
            let detail = format!("more than {MOST_NEEDED} fields need a pass: leave some out");
            return Err(self.refused(detail));
        }
        let (field, pointer, why) = (field.to_owned(), self.pointer.clone(), why.to_owned());
        self.needed.push(NeededPass { field, pointer, why, is_reference });
        Ok(())
    }

    /// Notes a pass for what `value` is. What it opens may not open more: references in it need theirs.
    fn open(&mut self, need: &Need, value: &str) -> Walked {
        self.need(&need.field, &need.why, need.is_reference)?;
        if need.is_reference { Ok(()) } else { self.references(value) }
    }

    fn open_unknown(&mut self, kind: &Kind, name: &str, value: &str) -> Walked {
        self.need(&join(&kind.at, name), UNKNOWN, false)?;
        let folded = fold(name);
        if self.table.reference_names.contains(&folded) && value != "null" {
            self.need(&folded, KEPT, true)?;
        }
        self.references(value)
    }

    /// Looks into the object that `text` is.
    fn object(
        &mut self,
        kind: &'t Kind,
        members: &[Member<'_>],
        text: &str,
        depth: usize,
    ) -> Walked {
        self.names(kind, members)?;
        if let Some(tag) = &kind.tag
            && self.is_opened(tag, members, text)?
        {
            return Ok(());
        }
        for (name, value) in members {
            if kind.tag.as_ref().is_some_and(|tag| tag.field == *name) {
                continue;
            }
            let back = self.enter(name);
            self.member(kind, name, value, depth)?;
            self.leave(back);
        }
        Ok(())
    }

    /// Refuses names that some reader takes for one another, or for one that is known.
    fn names(&mut self, kind: &Kind, members: &[Member<'_>]) -> Walked {
        let is_known = |name: &str| {
            kind.fields.contains_key(name) || kind.tag.as_ref().is_some_and(|tag| tag.field == name)
        };
        let mut unknown: Vec<(String, &str)> = Vec::new();
        for (name, _) in members.iter().filter(|(name, _)| !is_known(name)) {
            let folded = fold(name);
            let known = kind.folded.get(&folded).map(String::as_str);
            let other = unknown.iter().find(|(known, _)| *known == folded).map(|(_, name)| *name);
            if let Some(other) = known.or(other) {
                self.enter(name);
                return Err(self.refused(format!(
                    "`{}` can be taken for `{other}`: write `{other}`, or leave it out",
                    name.escape_debug()
                )));
            }
            unknown.push((folded, name));
        }
        Ok(())
    }

    /// Whether the object is of a sort that needs a pass as a whole.
    fn is_opened(&mut self, tag: &'t Tag, members: &[Member<'_>], text: &str) -> Walked<bool> {
        let find = |name: &str| {
            let found = members.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| *value).filter(|value| *value != "null")
        };
        let Some(value) = find(&tag.field) else {
            let enough = |needed: &String| needed.is_empty() || find(needed).is_some();
            if tag.untagged.as_ref().is_some_and(enough) {
                return Ok(false);
            }
            self.open(&tag.untyped, text)?;
            return Ok(true);
        };
        let word = serde_json::from_str::<String>(value).ok();
        let Some(word) = word else {
            let untyped = Need { field: join(&tag.at, "untyped"), ..tag.untyped.clone() };
            self.open(&untyped, text)?;
            return Ok(true);
        };
        if tag.words.contains(&word) {
            if let Some(needed) = tag.requires.get(&word)
                && find(needed).is_none()
                && find("id").is_some()
            {
                let why = format!("without `{needed}` it opens an item that the provider keeps");
                self.need(&join(&tag.at, &word), &why, true)?;
            }
            return Ok(false);
        }
        if let Some(need) = tag.others.get(&word) {
            self.open(need, text)?;
        } else {
            let why = UNKNOWN.to_owned();
            let need = Need { field: join(&tag.at, &word), why, is_reference: false };
            self.open(&need, text)?;
        }
        Ok(true)
    }

    fn member(&mut self, kind: &'t Kind, name: &str, value: &str, depth: usize) -> Walked {
        let Some(rule) = kind.fields.get(name) else {
            return self.open_unknown(kind, name, value);
        };
        match rule {
            Rule::Data => Ok(()),
            Rule::Stays if is_scalar(value, 0) => Ok(()),
            Rule::Stays => {
                let within = ["a value of `", name, "` is not an object"].concat();
                let field = join(&join(&kind.at, name), "object");
                self.need(&field, &within, false)?;
                self.references(value)
            }
            Rule::Bytes(_) if is_content(value, true) => Ok(()),
            Rule::Url(_) if is_content(value, false) => Ok(()),
            Rule::Within(other) => {
                let other = self.kind(other)?;
                self.within(other, value, depth + 1)
            }
            Rule::Only(values) => match word(value) {
                _ if value == "null" => Ok(()),
                Some(word) if values.iter().any(|known| known == word) => Ok(()),
                word => {
                    let why = format!("only {} stay within the call", values.join(", "));
                    let field = join(&join(&kind.at, name), word.unwrap_or("other"));
                    self.need(&field, &why, false)
                }
            },
            Rule::Needs(_) if value == "null" => Ok(()),
            Rule::Bytes(need) | Rule::Url(need) | Rule::Needs(need) => self.open(need, value),
            Rule::Refused { unless_false: true, .. } if matches!(value, "null" | "false") => Ok(()),
            Rule::Refused { why, .. } => {
                Err(self.refused(format!("`{name}`: {why}; leave it out")))
            }
        }
    }

    /// A value in whose place objects of `kind` belong, or lists of them.
    fn within(&mut self, kind: &'t Kind, value: &str, depth: usize) -> Walked {
        if depth > DEEPEST {
            let detail = format!("objects lie more than {DEEPEST} deep in each other");
            return Err(self.refused(detail));
        }
        match value.as_bytes().first() {
            Some(b'{') => {
                let members = members(value).map_err(|error| self.refused(error.to_string()))?;
                self.object(kind, &members, value, depth)
            }
            Some(b'[') => {
                let mut index = 0_usize;
                each_item(value, |item| {
                    let back = self.enter(&index.to_string());
                    self.within(kind, item, depth + 1)?;
                    self.leave(back);
                    index += 1;
                    Ok(())
                })
            }
            Some(b'"') if kind.is_url && !is_content(value, false) => {
                self.need(&kind.url, FETCHED, false)
            }
            _ => Ok(()),
        }
    }

    /// Finds what `value`, which a pass lets through, opens at the provider.
    fn references(&mut self, value: &str) -> Walked {
        let found = references(value, &self.table.reference_names);
        for name in found.map_err(|error| self.refused(error.to_string()))? {
            self.need(&name, KEPT, true)?;
        }
        Ok(())
    }
}

/// The value as one word: text, a number, or `true` and `false`.
fn word(value: &str) -> Option<&str> {
    let text = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let word = text.unwrap_or(value);
    is_plain(word).then_some(word)
}

/// Whether a value is a scalar, or lists of scalars, that are not deeper in each other than any API's are: each
/// level is read anew, and on the stack.
fn is_scalar(value: &str, depth: usize) -> bool {
    match value.as_bytes().first() {
        Some(b'{') => false,
        Some(b'[') if depth == DEEPEST => false,
        Some(b'[') => {
            let scalar = |item| if is_scalar(item, depth + 1) { Ok(()) } else { Err(NotScalar) };
            each_item(value, scalar).is_ok()
        }
        _ => true,
    }
}

struct NotScalar;

impl From<serde_json::Error> for NotScalar {
    fn from(_: serde_json::Error) -> Self {
        Self
    }
}

/// Whether a value is the content itself and not the place where it lies: a `data:` URL, or, where that
/// is taken, base64. Only text that nobody can read otherwise is taken for it.
fn is_content(value: &str, takes_base64: bool) -> bool {
    let Some(text) = value.strip_prefix('"') else { return value == "null" };
    if text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:")) {
        return true;
    }
    // An escaped slash is a slash: some serialisers write it so.
    let of_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-\\".contains(&byte);
    let text = text.strip_suffix('"').unwrap_or(text);
    takes_base64 && text.bytes().all(of_base64)
}
