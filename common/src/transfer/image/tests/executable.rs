//! A small executable, assembled byte by byte: calls, a jump table, pointers in data.

/// Functions of the executable, and which of them is written anew.
const FUNCTIONS: usize = 120;
const REWRITTEN: usize = 11;
/// Where the first byte is loaded.
const ADDRESS: u64 = 0x40_0000;
/// Where code begins: after the headers of the file and of its segment.
const CODE: usize = 128;
/// Names of sections.
const NAMES: &[u8] = b"\0.text\0.rodata\0.data\0.shstrtab\0";

/// Returns the executable; the next release of it has some functions grown, and one written anew at the end.
pub(super) fn executable(is_next: bool) -> Vec<u8> {
    let (mut order, is_grown): (Vec<usize>, _) =
        ((0..FUNCTIONS).collect(), |number: usize| is_next && number % 17 == 5);
    if is_next {
        order.retain(|number| *number != REWRITTEN);
        order.push(REWRITTEN);
    }
    let salt = |number: usize| u64::from(is_next && number == REWRITTEN) * 1_000 + number as u64;
    // Two passes: the second knows where everything is.
    let (mut starts, mut code, mut table) = (vec![0; FUNCTIONS], Vec::new(), 0);
    for _ in 0..2 {
        code = vec![0; CODE];
        let known = starts.clone();
        for number in &order {
            starts[*number] = code.len();
            code.extend_from_slice(if is_grown(*number) { &[0x90; 9] } else { &[] });
            for constant in super::noise(salt(*number), 32).chunks_exact(4) {
                code.push(0xb8);
                code.extend_from_slice(constant);
            }
            relative(&mut code, &[0xe8], known[number * 7 % FUNCTIONS]);
            relative(&mut code, &[0xe8], known[REWRITTEN]);
            relative(&mut code, &[0x48, 0x8d, 0x05], table);
            code.push(0xc3);
        }
        code.resize(code.len().next_multiple_of(8), 0xcc);
        table = code.len();
    }
    let entries = starts.iter().step_by(3).flat_map(|start| (*start as i32 - table as i32).to_le_bytes());
    let pointers = starts.iter().step_by(2).flat_map(|start| (ADDRESS + *start as u64).to_le_bytes());
    let sections = [code.split_off(CODE), entries.collect(), pointers.collect(), NAMES.to_vec()];
    link(code, &sections)
}

/// Appends an instruction that refers to a place by its distance.
fn relative(code: &mut Vec<u8>, instruction: &[u8], target: usize) {
    code.extend_from_slice(instruction);
    let distance = target as i32 - (code.len() as i32 + 4);
    code.extend_from_slice(&distance.to_le_bytes());
}

/// Lays sections end to end, with the headers of an ELF file.
fn link(mut file: Vec<u8>, sections: &[Vec<u8>; 4]) -> Vec<u8> {
    // What each is: type, flags, and where in the names its name begins.
    const KINDS: [(u64, u64, u64); 4] = [(1, 6, 1), (1, 2, 7), (1, 3, 15), (3, 0, 21)];
    let mut headers = vec![0; 64];
    for (bytes, (kind, flags, name)) in sections.iter().zip(KINDS) {
        file.resize(file.len().next_multiple_of(8), 0);
        let (offset, len) = (file.len() as u64, bytes.len() as u64);
        for word in [name | kind << 32, flags, ADDRESS + offset, offset, len, 0, 8, 0] {
            headers.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(bytes);
    }
    file.resize(file.len().next_multiple_of(8), 0);
    let (sections_offset, len) = (file.len() as u64, (file.len() + headers.len()) as u64);
    file.extend_from_slice(&headers);
    // 64 bits, the low byte first; a shared object for x86-64; one segment, five sections.
    let (magic, machine) = (0x0001_0102_464c_457f, 0x1_003e_0003);
    let sizes = [64 << 32 | 56 << 48, 1 | 64 << 16 | 5 << 32 | 4 << 48];
    let head = [magic, 0, machine, 0, 64, sections_offset, sizes[0], sizes[1]];
    let segment = [1 | 5 << 32, 0, ADDRESS, ADDRESS, len, len, 4_096];
    for (place, word) in file.chunks_exact_mut(8).zip(head.iter().chain(&segment)) {
        place.copy_from_slice(&u64::to_le_bytes(*word));
    }
    file
}
