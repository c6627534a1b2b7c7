//! References of data: relocations, symbols, pointers, unwind tables, jump tables.

use goblin::elf::section_header::{SHT_DYNSYM, SHT_FINI_ARRAY, SHT_INIT_ARRAY, SHT_PROGBITS, SHT_RELA};

use super::{File, Kind, Section, half};

/// Size of a relocation with addend, and of a symbol.
const ENTRY_BYTES: usize = 24;
/// Fewest entries of a jump table: two words that point into code by chance are common, three are not.
const TABLE_ENTRIES_MIN: usize = 3;

pub(super) fn references(section: &Section<'_>, file: &mut File<'_>) {
    match section.header.sh_type {
        SHT_RELA => entries(section, file, &[0, 16]),
        SHT_DYNSYM => entries(section, file, &[8]),
        SHT_PROGBITS | SHT_INIT_ARRAY | SHT_FINI_ARRAY => match section.name {
            ".eh_frame_hdr" => unwind_index(section, file),
            ".eh_frame" => unwind_frames(section, file),
            _ => pointers(section, file),
        },
        _ => {}
    }
}

/// Entries of 24 bytes with addresses at the given offsets.
fn entries(section: &Section<'_>, file: &mut File<'_>, fields: &[usize]) {
    for entry in 0..section.bytes.len() / ENTRY_BYTES {
        for field in fields {
            file.push_pointer(section.offset + entry * ENTRY_BYTES + field);
        }
    }
}

/// Aligned words that are addresses.
fn pointers(section: &Section<'_>, file: &mut File<'_>) {
    let aligned = section.offset.next_multiple_of(8);
    for at in (aligned..section.offset + section.bytes.len()).step_by(8) {
        file.push_pointer(at);
    }
}

/// `.eh_frame_hdr`: after 12 bytes, pairs of four bytes counted from the section's beginning.
fn unwind_index(section: &Section<'_>, file: &mut File<'_>) {
    let Some(base) = file.place(section.header.sh_addr) else { return };
    for at in (12..section.bytes.len().saturating_sub(3)).step_by(4) {
        if let Some(value) = half(section.bytes, at) {
            let address = section.header.sh_addr.wrapping_add_signed(i64::from(value));
            file.push(section.offset + at, Kind::Table { base }, address);
        }
    }
}

/// `.eh_frame`: each description begins with where its code begins, counted from the field itself.
fn unwind_frames(section: &Section<'_>, file: &mut File<'_>) {
    let mut at = 0;
    while let (Some(len), Some(id)) = (half(section.bytes, at), half(section.bytes, at + 4)) {
        let Ok(len) = usize::try_from(len) else { return };
        if len > 0
            && id != 0
            && let Some(value) = half(section.bytes, at + 8)
        {
            let site = section.header.sh_addr + (at + 8) as u64;
            file.push(section.offset + at + 8, Kind::Relative, site.wrapping_add_signed(i64::from(value)));
        }
        at += 4 + len;
    }
}

/// Jump tables: where code takes an address of `.rodata`, four-byte entries counted from there that all lead into code.
pub(super) fn jump_tables(sections: &[Section<'_>], file: &mut File<'_>) {
    let mut taken = std::mem::take(&mut file.taken);
    taken.sort_unstable();
    taken.dedup();
    let code: Vec<_> = sections.iter().filter(|section| section.is_code()).map(addresses).collect();
    for section in sections.iter().filter(|section| section.name == ".rodata" && !section.is_code()) {
        let range = addresses(section);
        let bases =
            &taken[taken.partition_point(|a| *a < range.start)..taken.partition_point(|a| *a < range.end)];
        for (i, base) in bases.iter().enumerate() {
            let limit = bases.get(i + 1).copied().unwrap_or(range.end);
            let begin = (*base - range.start) as usize;
            let targets: Vec<u64> = (begin..(limit - range.start) as usize)
                .step_by(4)
                .map_while(|at| half(section.bytes, at))
                .map(|value| base.wrapping_add_signed(i64::from(value)))
                .take_while(|target| code.iter().any(|code| code.contains(target)))
                .collect();
            let Some(base) = file.place(*base).filter(|_| targets.len() >= TABLE_ENTRIES_MIN) else {
                continue;
            };
            for (entry, target) in targets.into_iter().enumerate() {
                file.push(section.offset + begin + entry * 4, Kind::Table { base }, target);
            }
        }
    }
}

fn addresses(section: &Section<'_>) -> std::ops::Range<u64> {
    section.header.sh_addr..section.header.sh_addr + section.header.sh_size
}
