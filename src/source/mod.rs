//! What people write, as it lies on disk: which files of a policy folder are policies, and what may be
//! shown of a line that is wrong. Not what the files say.

mod alike;
mod fault;
mod folder;
mod marks;
mod secrecy;
mod suggestion;
mod toml;

pub use alike::alike;
pub use fault::{Fault, Faults, SourceFile};
pub use folder::{PolicyFolder, decides, read_file, read_policy_folder};
pub use marks::marks;
pub use secrecy::{is_name, is_variable, is_word, shown_path, without_secrets, without_values};
pub use suggestion::{did_you_mean, nearest};
pub use toml::parse as parse_toml;
