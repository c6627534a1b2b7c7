//! What `sluice package cost` says, what the encoder makes, and what the sockets carry: one number.

use anyhow::Result;
use sluice_common::transfer::Effort;

use super::work::Work;
use crate::show::board::Board;
use crate::show::real_input;
use crate::trees::Pair;

pub(super) fn run(board: &mut Board, work: &mut Work) -> Result<()> {
    let Some((old, new)) = Work::trees(board, Pair::Ruff)? else { return Ok(()) };
    for effort in ["quick", "best"] {
        let said = real_input::package_cost(&old, &new, effort, "update_bytes")?;
        let Some(ours) = work.ours(Pair::Ruff, false, effort.parse::<Effort>()?)? else { continue };
        let ratio = said as f64 / ours.bytes as f64;
        board.line(
            &format!("package cost --effort {effort}, update of ruff"),
            &format!("{said} B = {ratio:.4} of what is encoded"),
            "0.98 to 1.02",
            (0.98..=1.02).contains(&ratio),
        );
    }
    real_input::forecast(board, &old, &new)
}
