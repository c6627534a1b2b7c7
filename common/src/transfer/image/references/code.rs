//! References of instructions: RIP-relative operands and near branches of four bytes.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};

use super::{File, Kind, Section};

pub(super) fn references(section: &Section<'_>, file: &mut File<'_>) {
    let mut decoder = Decoder::with_ip(64, section.bytes, section.header.sh_addr, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        let begin = section.offset + decoder.position();
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
                file.taken.push(address);
            }
            file.push(begin + fields.displacement_offset(), Kind::Relative, address);
        }
        let is_branch = (0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::NearBranch64);
        if is_branch && fields.has_immediate() && fields.immediate_size() == 4 {
            file.push(begin + fields.immediate_offset(), Kind::Relative, instruction.near_branch64());
        }
    }
}
