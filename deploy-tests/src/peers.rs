//! Other tools on the same trees, in the same run: what they would send, and what it costs at both ends.
//!
//! A peer is data: two shell scripts and the program that they need. `encode` leaves in `$WORK/sent` everything that
//! would travel; `apply` makes `$WORK/out.tar` or `$WORK/out` of it and the old tree, which is then compared with the
//! new one. A script sees:
//!
//! | variable | |
//! |---|---|
//! | `OLD`, `NEW` | the trees |
//! | `OLD_TAR`, `NEW_TAR` | the same as tar archives, sorted, without times and owners |
//! | `OLD_CHANGED`, `NEW_CHANGED` | the contents of all changed and new files (and of what they replace), end to end |
//! | `CHANGED` | a list of the files that changed, each the old path, a tab, the new path; `ADDED`: of those that are new |
//! | `WORK` | an empty directory |
//! | `TOOLS` | where programs of this run are installed |

mod table;
mod tool;
mod trial;

pub use table::{ALL, Kind, Peer, find};
pub use tool::{Tool, versions};
pub use trial::{Prepared, Trial};
