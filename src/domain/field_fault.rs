//! Faults in a request: which field, what is wrong, what to do.

/// In which part of a request a field is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldPlace {
    /// In the body: the field is named by a JSON Pointer (RFC 6901).
    #[default]
    Body,
    /// In the query or the path: by the parameter's name.
    Parameter,
    /// Among the headers: by the header's name.
    Header,
}

/// One field of a request that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFault {
    /// Which: a JSON Pointer into the body, or the name of a parameter or a header.
    pub pointer: String,
    /// What is wrong and what to do.
    pub detail: String,
    /// Where the field is.
    pub place: FieldPlace,
}

impl FieldFault {
    /// A fault of the body at `pointer`.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into(), place: FieldPlace::Body }
    }

    /// A fault of the parameter `name` of the query or the path.
    pub fn parameter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { place: FieldPlace::Parameter, ..Self::new(name, detail) }
    }

    /// A fault of the header `name`.
    pub fn header(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { place: FieldPlace::Header, ..Self::new(name, detail) }
    }
}
