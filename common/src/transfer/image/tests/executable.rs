//! A small executable, assembled byte by byte: calls, a jump table, pointers in data.

use super::Machine;

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
pub(super) fn executable(machine: Machine, is_next: bool) -> Vec<u8> {
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
            let calls = [known[number * 7 % FUNCTIONS], known[REWRITTEN]];
            let function = Function { is_grown: is_grown(*number), salt: salt(*number), calls, table };
            match machine {
                Machine::X86_64 => function.x86_64(&mut code),
                Machine::Aarch64 => function.aarch64(&mut code),
            }
        }
        code.resize(code.len().next_multiple_of(8), 0xcc);
        table = code.len();
    }
    let entries = starts.iter().step_by(3).flat_map(|start| (*start as i32 - table as i32).to_le_bytes());
    let pointers = starts.iter().step_by(2).flat_map(|start| (ADDRESS + *start as u64).to_le_bytes());
    let sections = [code.split_off(CODE), entries.collect(), pointers.collect(), NAMES.to_vec()];
    link(machine, code, &sections)
}

/// A function: constants, two calls, an address taken or two, a return.
struct Function {
    is_grown: bool,
    salt: u64,
    calls: [usize; 2],
    table: usize,
}

impl Function {
    fn x86_64(&self, code: &mut Vec<u8>) {
        code.extend_from_slice(if self.is_grown { &[0x90; 9] } else { &[] });
        for constant in super::noise(self.salt, 32).chunks_exact(4) {
            code.push(0xb8);
            code.extend_from_slice(constant);
        }
        self.calls.iter().for_each(|target| relative(code, &[0xe8], *target));
        relative(code, &[0x48, 0x8d, 0x05], self.table);
        code.push(0xc3);
    }

    fn aarch64(&self, code: &mut Vec<u8>) {
        let begin = code.len();
        let mut push = |instruction: &dyn Fn(usize) -> u32| {
            let site = code.len();
            code.extend_from_slice(&instruction(site).to_le_bytes());
        };
        // So many that what lies behind the code moves to another page.
        (0..17 * u32::from(self.is_grown)).for_each(|_| push(&|_| 0xd503_201f));
        for constant in super::noise(self.salt, 14).chunks_exact(2) {
            push(&|_| 0x5280_0000 | u32::from(constant[0]) << 5 | u32::from(constant[1]) << 13);
        }
        let words = |site: usize, target: usize| ((target as i32 - site as i32) >> 2) as u32;
        for target in self.calls {
            push(&|site| 0x9400_0000 | words(site, target) & 0x3ff_ffff);
        }
        push(&|site| 0xb400_0000 | (words(site, begin) & 0x7_ffff) << 5);
        push(&|site| 0x3600_0000 | (words(site, begin) & 0x3fff) << 5);
        // The table's address in x0, and in x1 what lies behind its 40 entries.
        let pages = |site: usize, target: usize| ((target >> 12) as i32 - (site >> 12) as i32) as u32;
        let page =
            |site, target| (pages(site, target) & 3) << 29 | (pages(site, target) >> 2 & 0x7_ffff) << 5;
        let (table, behind) = (self.table, self.table + 160);
        push(&|site| 0x9000_0000 | page(site, table));
        push(&|_| 0x9100_0000 | (table as u32 & 0xfff) << 10);
        push(&|site| 0x9000_0001 | page(site, behind));
        push(&|_| 0xf940_0021 | (behind as u32 & 0xfff) >> 3 << 10);
        push(&|_| 0xd65f_03c0);
    }
}

/// Returns an executable of so many calls and nothing else.
pub(super) fn calls(machine: Machine, count: usize) -> Vec<u8> {
    let call: &[u8] = match machine {
        Machine::X86_64 => &[0xe8, 0, 0, 0, 0],
        Machine::Aarch64 => &0x9400_0001_u32.to_le_bytes(),
    };
    link(machine, vec![0; CODE], &[call.repeat(count), Vec::new(), Vec::new(), NAMES.to_vec()])
}

/// Appends an instruction that refers to a place by its distance.
fn relative(code: &mut Vec<u8>, instruction: &[u8], target: usize) {
    code.extend_from_slice(instruction);
    let distance = target as i32 - (code.len() as i32 + 4);
    code.extend_from_slice(&distance.to_le_bytes());
}

/// Lays sections end to end, with the headers of an ELF file.
fn link(machine: Machine, mut file: Vec<u8>, sections: &[Vec<u8>; 4]) -> Vec<u8> {
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
    // 64 bits, the low byte first; a shared object; one segment, five sections.
    let magic = 0x0001_0102_464c_457f;
    let machine = match machine {
        Machine::X86_64 => 0x1_003e_0003,
        Machine::Aarch64 => 0x1_00b7_0003,
    };
    let sizes = [64 << 32 | 56 << 48, 1 | 64 << 16 | 5 << 32 | 4 << 48];
    let head = [magic, 0, machine, 0, 64, sections_offset, sizes[0], sizes[1]];
    let segment = [1 | 5 << 32, 0, ADDRESS, ADDRESS, len, len, 4_096];
    for (place, word) in file.chunks_exact_mut(8).zip(head.iter().chain(&segment)) {
        place.copy_from_slice(&u64::to_le_bytes(*word));
    }
    file
}
