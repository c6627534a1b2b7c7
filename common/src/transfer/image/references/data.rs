//! References of data: relocations, symbols, pointers, unwind tables, jump tables.

use std::io;

use goblin::elf::section_header::{SHT_DYNSYM, SHT_FINI_ARRAY, SHT_INIT_ARRAY, SHT_PROGBITS, SHT_RELA};

use super::{Finder, Kind, Section};

/// Size of a relocation with addend, and of a symbol.
const ENTRY_BYTES: usize = 24;
/// Fewest entries of a jump table: two words that point into code by chance are common, three are not.
const TABLE_ENTRIES_MIN: usize = 3;

pub(super) fn references(section: &Section, finder: &mut Finder<'_>) -> io::Result<()> {
    match section.kind {
        SHT_RELA => entries(section, finder, &[0, 16]),
        SHT_DYNSYM => entries(section, finder, &[8]),
        SHT_PROGBITS | SHT_INIT_ARRAY | SHT_FINI_ARRAY => match section.name.as_str() {
            ".eh_frame_hdr" => unwind_index(section, finder),
            ".eh_frame" => unwind_frames(section, finder),
            _ => pointers(section, finder),
        },
        _ => Ok(()),
    }
}

/// Entries of 24 bytes with addresses at the given offsets.
fn entries(section: &Section, finder: &mut Finder<'_>, fields: &[usize]) -> io::Result<()> {
    let (begin, within) = finder.within(section);
    for entry in (within.start / ENTRY_BYTES)..(within.end / ENTRY_BYTES) {
        for field in fields {
            if let Ok(at) = usize::try_from(begin + (entry * ENTRY_BYTES + field) as i64) {
                finder.push_pointer(at)?;
            }
        }
    }
    Ok(())
}

/// Words that are addresses, where the file is aligned.
fn pointers(section: &Section, finder: &mut Finder<'_>) -> io::Result<()> {
    let (begin, within) = finder.within(section);
    let first = within.start.max((section.offset.next_multiple_of(8) - section.offset) as usize);
    for at in (first..within.end.saturating_sub(7)).step_by(8) {
        finder.push_pointer((begin + at as i64) as usize)?;
    }
    Ok(())
}

/// `.eh_frame_hdr`: after 12 bytes, pairs of four bytes counted from the section's beginning.
fn unwind_index(section: &Section, finder: &mut Finder<'_>) -> io::Result<()> {
    let (begin, within) = finder.within(section);
    let Some(base) = finder.place(section.address) else { return Ok(()) };
    for at in (12.max(within.start.next_multiple_of(4))..within.end.saturating_sub(3)).step_by(4) {
        let place = (begin + at as i64) as usize;
        if let Some(value) = finder.window.half(place)? {
            let address = section.address.wrapping_add_signed(i64::from(value));
            finder.push(place, Kind::Table { base }, address);
        }
    }
    Ok(())
}

/// `.eh_frame`: each description begins with where its code begins, counted from the field itself. They can be followed
/// from the first only.
fn unwind_frames(section: &Section, finder: &mut Finder<'_>) -> io::Result<()> {
    let (begin, within) = finder.within(section);
    let mut at = 0;
    while within.start == 0 && at + 12 <= within.end {
        let place = (begin + at as i64) as usize;
        let (len, id) = (finder.window.half(place)?, finder.window.half(place + 4)?);
        let Some(len) = len.and_then(|len| usize::try_from(len).ok()) else { break };
        if len > 0
            && id != Some(0)
            && let Some(value) = finder.window.half(place + 8)?
        {
            let site = section.address + (at + 8) as u64;
            finder.push(place + 8, Kind::Relative, site.wrapping_add_signed(i64::from(value)));
        }
        at += 4 + len;
    }
    Ok(())
}

/// Jump tables: where code takes an address of `.rodata`, four-byte entries counted from there that all lead into code.
pub(super) fn jump_tables(finder: &mut Finder<'_>) -> io::Result<()> {
    let mut taken = std::mem::take(&mut finder.taken);
    taken.sort_unstable();
    taken.dedup();
    let layout = finder.layout;
    for section in layout.sections.iter().filter(|section| section.has_tables()) {
        let range = section.addresses();
        let bases =
            &taken[taken.partition_point(|a| *a < range.start)..taken.partition_point(|a| *a < range.end)];
        for (i, base) in bases.iter().enumerate() {
            jump_table(section, *base..bases.get(i + 1).copied().unwrap_or(range.end), finder)?;
        }
    }
    Ok(())
}

/// Adds the entries of what may be a jump table at `range` of a section's addresses.
fn jump_table(section: &Section, range: std::ops::Range<u64>, finder: &mut Finder<'_>) -> io::Result<()> {
    let layout = finder.layout;
    let is_code = |address: &u64| {
        layout.sections.iter().any(|section| section.is_code && section.addresses().contains(address))
    };
    let (begin, within) = finder.within(section);
    let first = (range.start - section.address) as usize;
    let limit = within.end.min((range.end - section.address) as usize);
    let Some(base) = finder.place(range.start).filter(|_| first >= within.start) else { return Ok(()) };
    let known = finder.found.len();
    for at in (first..limit).step_by(4) {
        let place = (begin + at as i64) as usize;
        let value = finder.window.half(place)?;
        let target = value.map(|value| range.start.wrapping_add_signed(i64::from(value)));
        let Some(target) = target.filter(is_code) else { break };
        finder.push(place, Kind::Table { base }, target);
    }
    if finder.found.len() - known < TABLE_ENTRIES_MIN {
        finder.found.truncate(known);
    }
    Ok(())
}
