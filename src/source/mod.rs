//! What people write, as it lies on disk: which files of a policy folder are policies, and what may be
//! shown of a line that is wrong. Not what the files say.

mod folder;
mod secrecy;

pub use folder::{PolicyFolder, decides, read_file, read_policy_folder};
pub use secrecy::{is_variable, is_word, shown_path, without_secrets, without_values};
