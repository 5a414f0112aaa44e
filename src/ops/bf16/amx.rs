//! The tile instructions, for which stable Rust has no intrinsics: eight tiles of 16 rows of 64 bytes.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(super) use elsewhere::{Tiles, available};
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) use linux::{Tiles, available};

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod linux {
    use std::arch::asm;
    use std::sync::LazyLock;

    use super::super::operands::{Extent, Left, Right, Square};

    /// Whether the processor multiplies tiles of bf16 and Linux (since 5.16) lets this process do so.
    pub(crate) fn available() -> bool {
        static AVAILABLE: LazyLock<bool> = LazyLock::new(|| has_tiles() && permitted());
        *AVAILABLE
    }

    /// AMX-BF16 and AMX-TILE, and AVX-512 for what surrounds them.
    fn has_tiles() -> bool {
        const BITS: u32 = 1 << 22 | 1 << 24;
        let highest = std::arch::x86_64::__cpuid(0).eax;
        highest >= 7 && std::arch::x86_64::__cpuid_count(7, 0).edx & BITS == BITS
    }

    /// Asks Linux, which keeps the tiles' 8 KiB out of a thread's saved state until a process asks.
    fn permitted() -> bool {
        const ARCH_PRCTL: i64 = 158;
        const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
        const XFEATURE_XTILEDATA: i64 = 18;
        let result: i64;
        // SAFETY: the call changes a permission of this process and no memory; the kernel clobbers rcx and r11.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => result,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XFEATURE_XTILEDATA,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        result == 0
    }

    /// What LDTILECFG reads: palette 1, eight tiles of 16 rows of 64 bytes.
    #[repr(C, align(64))]
    struct Config {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes_a_row: [u16; 16],
        rows: [u8; 16],
    }

    static CONFIG: Config = Config {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        bytes_a_row: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };

    /// The tiles of this thread, which are given back when this is dropped.
    pub(crate) struct Tiles(());

    impl Tiles {
        /// Takes the tiles of this thread.
        ///
        /// # Panics
        /// Where they are not [`available`].
        pub(crate) fn configure() -> Self {
            assert!(available(), "this processor has no AMX");
            // SAFETY: the process has the permission, and the configuration is one that exists.
            unsafe {
                asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly));
            }
            Self(())
        }

        /// As [`Blocks::multiply`](super::super::Blocks::multiply).
        ///
        /// # Safety
        /// As there.
        pub(crate) unsafe fn multiply(
            &self,
            left: Left,
            right: Right,
            steps: usize,
            extent: Extent,
            sums: &mut Square,
        ) {
            if left.groups * steps == 0 {
                sums.0.fill(0.0);
                return;
            }
            let of = match extent {
                Extent { two_rows: true, two_columns: true } => two_by_two,
                Extent { two_rows: true, two_columns: false } => two_by_one,
                Extent { two_rows: false, two_columns: true } => one_by_two,
                Extent { two_rows: false, two_columns: false } => one_by_one,
            };
            // SAFETY: the tiles are configured; else the caller's promise.
            unsafe { of(left, right, steps, sums) }
        }
    }

    impl Drop for Tiles {
        fn drop(&mut self) {
            // SAFETY: the tiles are this thread's, and nothing is in them that is wanted.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }

    /// A loop over groups and steps that leaves its sums in tiles 0 to 3. Strides are in bytes.
    macro_rules! multiply {
        ($name:ident, [$($step:literal),*], [$($store:literal),*]) => {
            /// # Safety
            /// The tiles are configured, there is a group and a step, and both operands can be read.
            unsafe fn $name(left: Left, right: Right, steps: usize, sums: &mut Square) {
                // Numbers have two bytes. How far the left operand moves between groups, behind its steps.
                let next_group = (2 * left.group).wrapping_sub(64 * steps);
                // SAFETY: reads the operands, as the caller promises, and writes `sums`; tiles are nobody else's.
                unsafe {
                    asm!(
                        "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                        "2:",
                        "mov {n}, {steps}",
                        "3:",
                        $($step,)*
                        "add {a}, 64",
                        "add {b}, {next}",
                        "dec {n}",
                        "jnz 3b",
                        "add {a}, {next_group}",
                        "dec {groups}",
                        "jnz 2b",
                        $($store,)*
                        a = inout(reg) left.at => _,
                        b = inout(reg) right.at => _,
                        n = out(reg) _,
                        a2 = out(reg) _,
                        groups = inout(reg) left.groups => _,
                        steps = in(reg) steps,
                        next_group = in(reg) next_group,
                        next = in(reg) 2 * right.step,
                        s = in(reg) 2 * left.stride,
                        q = in(reg) 2 * right.stride,
                        a16 = in(reg) 32 * left.stride,
                        second = in(reg) 2 * right.second,
                        c = in(reg) sums.0.as_mut_ptr(),
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack),
                    );
                }
            }
        };
    }

    // Rows of sums are 128 bytes apart; "steps" is free once the loops are done.
    multiply!(
        two_by_two,
        [
            "tileloadd tmm4, [{a}+{s}*1]",
            "tileloadd tmm6, [{b}+{q}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "lea {a2}, [{b}+{second}]",
            "tileloadd tmm7, [{a2}+{q}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "lea {a2}, [{a}+{a16}]",
            "tileloadd tmm5, [{a2}+{s}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7"
        ],
        [
            "mov {n}, 128",
            "tilestored [{c}+{n}*1], tmm0",
            "tilestored [{c}+{n}*1+64], tmm1",
            "tilestored [{c}+{n}*1+2048], tmm2",
            "tilestored [{c}+{n}*1+2112], tmm3"
        ]
    );
    multiply!(
        two_by_one,
        [
            "tileloadd tmm4, [{a}+{s}*1]",
            "tileloadd tmm6, [{b}+{q}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "lea {a2}, [{a}+{a16}]",
            "tileloadd tmm5, [{a2}+{s}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "/* {second} */"
        ],
        ["mov {n}, 128", "tilestored [{c}+{n}*1], tmm0", "tilestored [{c}+{n}*1+2048], tmm2"]
    );
    multiply!(
        one_by_two,
        [
            "tileloadd tmm4, [{a}+{s}*1]",
            "tileloadd tmm6, [{b}+{q}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "lea {a2}, [{b}+{second}]",
            "tileloadd tmm7, [{a2}+{q}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "/* {a16} */"
        ],
        ["mov {n}, 128", "tilestored [{c}+{n}*1], tmm0", "tilestored [{c}+{n}*1+64], tmm1"]
    );
    multiply!(
        one_by_one,
        [
            "tileloadd tmm4, [{a}+{s}*1]",
            "tileloadd tmm6, [{b}+{q}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "/* {second} {a16} {a2} */"
        ],
        ["mov {n}, 128", "tilestored [{c}+{n}*1], tmm0"]
    );
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod elsewhere {
    use super::super::operands::{Extent, Left, Right, Square};

    /// There are none.
    pub(crate) enum Tiles {}

    pub(crate) const fn available() -> bool {
        false
    }

    impl Tiles {
        pub(crate) fn configure() -> Self {
            unreachable!("this system has no AMX")
        }

        pub(crate) unsafe fn multiply(
            &self,
            _: Left,
            _: Right,
            _: usize,
            _: Extent,
            _: &mut Square,
        ) {
            match *self {}
        }
    }
}
