//! `notify`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum NotifyCommand {
    /// Have a web address told; prints the secret by which it knows who tells it
    #[command(after_help = "Examples:\n  sluice notify add chat https://chat.example.com/hooks/sluice\n  \
        sluice notify add pager https://pager.example.com/in --event rollout.rolling_back --event rollout.failed")]
    Add {
        /// A name for it
        name: String,
        /// Where it listens, by http or https
        url: String,
        /// Only these events, such as rollout.failed; may be given several times [default: all]
        #[arg(long = "event", value_name = "EVENT")]
        events: Vec<String>,
    },
    /// List who is told, and how that goes
    #[command(after_help = "Example:\n  sluice notify list")]
    List,
    /// Tell a listener once, now, and say what it answered
    #[command(after_help = "Example:\n  sluice notify test chat")]
    Test {
        /// The listener
        name: String,
    },
    /// Tell a listener nothing more
    #[command(after_help = "Example:\n  sluice notify remove chat")]
    Remove {
        /// The listener
        name: String,
    },
}
