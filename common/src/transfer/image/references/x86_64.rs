//! References of x86-64 instructions: RIP-relative operands and near branches of four bytes.

use std::io;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};

use super::{Finder, Kind, Section};

/// Bytes disassembled at once.
const RUN_BYTES: usize = 128 * 1024;
/// Longest instruction.
const INSTRUCTION_BYTES_MAX: usize = 15;

pub(super) fn references(section: &Section, finder: &mut Finder<'_>) -> io::Result<()> {
    let (begin, within) = finder.within(section);
    let mut at = within.start;
    while at < within.end && !finder.is_over {
        let place = (begin + at as i64) as usize;
        let left = within.end - at;
        let bytes = finder.window.from(place, RUN_BYTES.min(left))?;
        let bytes = bytes[..RUN_BYTES.min(left)].to_vec();
        at += run(&bytes, place, section.address + at as u64, left == bytes.len(), finder);
    }
    Ok(())
}

/// Disassembles bytes that lie at `place`; returns how many were done: all but an instruction that may go on after them.
fn run(bytes: &[u8], place: usize, address: u64, is_last: bool, finder: &mut Finder<'_>) -> usize {
    let end = if is_last { bytes.len() } else { bytes.len() - INSTRUCTION_BYTES_MAX };
    let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.position() < end && !finder.is_over {
        let begin = place + decoder.position();
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            continue;
        }
        let fields = decoder.get_constant_offsets(&instruction);
        if instruction.is_ip_rel_memory_operand()
            && fields.has_displacement()
            && fields.displacement_size() == 4
        {
            let address = instruction.ip_rel_memory_address();
            if instruction.mnemonic() == Mnemonic::Lea {
                finder.take_address(address);
            }
            finder.push(begin + fields.displacement_offset(), Kind::Relative, address);
        }
        let is_branch = (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::NearBranch64);
        if is_branch && fields.has_immediate() && fields.immediate_size() == 4 {
            finder.push(begin + fields.immediate_offset(), Kind::Relative, instruction.near_branch64());
        }
    }
    decoder.position()
}
