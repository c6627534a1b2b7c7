//! Random damage to frames, manifests and plans: whatever the decoders answer, nothing false is accepted.
//!
//! The digests that a receiver checks first are left out on purpose: the decoders behind them must hold by themselves.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::Result;

use super::work::Work;
use crate::hostile;
use crate::lab::noise;
use crate::show::board::Board;

const FULL: u64 = 100_000;
const QUICK: u64 = 10_000;

pub(super) fn run(board: &mut Board, work: &mut Work) -> Result<()> {
    let count = if work.options.quick { QUICK } else { FULL };
    let seeds: Vec<_> = hostile::seeds().into_iter().filter(|(target, _)| is_transfer(target)).collect();
    let (mut accepted, mut panics, mut others) = (0_u64, 0_u64, 0_u64);
    // Each is counted; a thousand traces would not say more than the number.
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for number in 0..count {
        let (target, original) = &seeds[(number % seeds.len() as u64) as usize];
        // Some damage changes nothing.
        let again = (0..).map(|again| damage(original, number + again * count));
        let damaged = again.into_iter().find(|damaged| damaged != original).unwrap_or_default();
        match answer(target, &damaged) {
            Answer::Refused => {}
            Answer::Another => others += 1,
            Answer::Accepted => accepted += 1,
            Answer::Panicked => {
                println!("       panic: {target}, damage {number}");
                panics += 1;
            }
        }
    }
    std::panic::set_hook(loud);
    board.line(
        &format!("{count} random corruptions of {} inputs: false ones accepted", seeds.len()),
        &accepted.to_string(),
        "0",
        accepted == 0,
    );
    println!("       of them another manifest or plan, which is not what was asked for: {others}");
    board.line("  panics", &panics.to_string(), "0", panics == 0);
    Ok(())
}

/// Says whether an input is a frame, a manifest or a plan.
fn is_transfer(target: &str) -> bool {
    ["frame", "manifest", "plan"].iter().any(|kind| target.starts_with(kind))
}

enum Answer {
    Refused,
    /// It is a manifest or a plan, but none that anybody has named; whoever receives it compares its name, and each part that
    /// the plan restores.
    Another,
    Accepted,
    Panicked,
}

fn answer(target: &str, bytes: &[u8]) -> Answer {
    let Some((_, decoder)) = hostile::ALL.iter().find(|(name, _)| *name == target) else {
        return Answer::Refused;
    };
    // The decoder functions panic where something false was accepted, with words that say so.
    let work = || {
        decoder(bytes);
        hostile::restore(target, bytes);
    };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(()) if hostile::is_another(target, bytes) => Answer::Another,
        Ok(()) => Answer::Refused,
        Err(panic) if said(&*panic).contains(hostile::ACCEPTED) => Answer::Accepted,
        Err(_) => Answer::Panicked,
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    match panic.downcast_ref::<String>() {
        Some(text) => text,
        None => panic.downcast_ref::<&str>().copied().unwrap_or_default(),
    }
}

/// Damages bytes in one of five ways, drawn from a seed: bits, bytes, a cut, an insertion, a piece moved.
fn damage(original: &[u8], seed: u64) -> Vec<u8> {
    let random = noise(seed + 1, 40);
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| random[at * 8 + byte])) as usize;
    let place = |at: usize| word(at) % original.len().max(1);
    let mut bytes = original.to_vec();
    match word(0) % 5 {
        0 => bytes[place(1)] ^= 1 << (word(2) % 8),
        1 => {
            for at in 1..4 {
                bytes[place(at)] = random[at * 8 + 7];
            }
        }
        2 => bytes.truncate(place(1)),
        3 => {
            bytes.splice(place(1)..place(1), random[16..16 + word(4) % 16].iter().copied());
        }
        _ => {
            let (from, len) = (place(1), word(2) % 64);
            let piece: Vec<u8> = bytes[from..].iter().take(len).copied().collect();
            let to = place(3).min(bytes.len());
            let end = (to + piece.len()).min(bytes.len());
            bytes.splice(to..end, piece);
        }
    }
    bytes
}
