//! `kill -9` of the real coordinator at every commit of rollouts over 20 real agents, right before and right after it: of good
//! releases, of bad ones that fail at the canary or in the second batch and are taken back, and of what an operator asks for then.
//! Each rollout ends as it must, the line is stopped by those that fail, and never are more hosts out than may be, as the agents'
//! own states have it.
//!
//! | module | owns |
//! |---|---|
//! | [`play`] | the rollouts, and when the coordinator is killed in them |
//! | [`strikes`] | what was struck, as the coordinator's log says |
//! | [`observer`] | the agents' states, looked at all the time |

mod observer;
mod play;
mod strikes;

use anyhow::Result;

use super::super::Options;
use super::super::board::Board;
use observer::Observer;
use play::{BOTH, Play, Spread};

const APP: &str = "shop";
const HOSTS: usize = 20;
/// How many hosts may be out at once, and how many switch together.
const BUDGET: usize = 4;
/// The variable that names a file on whose presence a host fails.
const WEAK: &str = "WEAK";

/// Hooks that take long enough to be seen, and a gate that a host fails where there is cause.
const SPEC: &str = r#"[hooks.stop]
command = ["sleep", "0.1"]
[hooks.start]
command = ["sleep", "0.1"]
[hooks.validate]
command = ["sh", "-c", "sleep 0.1; test ! -e \"$WEAK\""]
"#;

/// One round: a good release, and bad ones with the batch in which they fail.
struct Round {
    good: Spread,
    canary: Spread,
    second: Spread,
}

const QUICK: Round = Round {
    good: Spread { sides: &[], forward: 0, retreat: 0 },
    canary: Spread { sides: &["after"], forward: 0, retreat: 1 },
    second: Spread { sides: &["before"], forward: 2, retreat: 3 },
};
const FULL: Round = Round {
    good: Spread { sides: BOTH, forward: 60, retreat: 0 },
    canary: Spread { sides: BOTH, forward: 30, retreat: 30 },
    second: Spread { sides: BOTH, forward: 60, retreat: 60 },
};

pub(super) fn run(board: &mut Board, options: &Options) -> Result<()> {
    let (wanted, round) = if options.quick { (12, &QUICK) } else { (300, &FULL) };
    let scratch = tempfile::tempdir()?;
    let mut play = Play::begin(scratch.path())?;
    let observer = Observer::start(&play.lab);
    let mut rounds = 0;
    while play.strikes.kills() < wanted {
        play.good(&round.good)?;
        play.bad(0, &round.canary)?;
        play.bad(1, &round.second)?;
        rounds += 1;
        println!("       round {rounds}: {} kills", play.strikes.kills());
    }
    for host in play.lab.hosts() {
        host.fsck(play.lab.executable())?;
    }
    play.strikes.show(board, wanted, play.rollouts);
    let figure = format!("{} of {} refused", play.refused, 2 * rounds);
    board.line("  new rollouts after a failed one", &figure, "all refused", play.refused == 2 * rounds);
    observer.show(board)?;
    play.lab.stop()
}
