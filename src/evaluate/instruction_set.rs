//! Which vector instructions the processor has, asked once at run time, and the macro that compiles a kernel for each.
//!
//! A kernel is written once as an `#[inline(always)]` function over `const SET: u8`; `kernel!` wraps it into
//! one function per instruction set and picks among them. So the shipped binary runs AVX-512 code where there is AVX-512.

/// Instruction sets for which kernels are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    Baseline,
    Avx2,
    Avx512,
    /// Part of every 64-bit Arm processor, fused multiply-add included.
    Neon,
}

impl InstructionSet {
    /// What this processor offers; the standard library caches the question.
    pub fn detect() -> InstructionSet {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma");
            let avx512 = std::is_x86_feature_detected!("avx512f")
                && std::is_x86_feature_detected!("avx512dq")
                && std::is_x86_feature_detected!("avx512vl")
                && std::is_x86_feature_detected!("avx512bw");
            if avx512 && avx2 {
                return InstructionSet::Avx512;
            }
            if avx2 {
                return InstructionSet::Avx2;
            }
        }
        if cfg!(target_arch = "aarch64") { InstructionSet::Neon } else { InstructionSet::Baseline }
    }

    /// The name for summaries.
    pub fn name(self) -> &'static str {
        match self {
            InstructionSet::Baseline => "baseline",
            InstructionSet::Avx2 => "AVX2",
            InstructionSet::Avx512 => "AVX-512",
            InstructionSet::Neon => "NEON",
        }
    }
}

/// Plain x86-64 or an unknown processor, as a kernel's `SET`.
pub const BASELINE: u8 = 0;
/// AVX2 with fused multiply-add.
pub const AVX2: u8 = 1;
/// AVX-512 F, DQ, VL and BW.
pub const AVX512: u8 = 2;
/// 64-bit Arm.
pub const NEON: u8 = 3;
/// What every processor of the target has.
pub const PLAIN: u8 = if cfg!(target_arch = "aarch64") { NEON } else { BASELINE };

/// `kernel!(fn name(argument: Type, …) = generic;)` makes `name::<SET>` call `generic::<SET>` compiled, once and out of
/// line, with the instructions of `SET`; and, with `entry` before the name of the entry, a function that asks the
/// processor which one to take.
macro_rules! kernel {
    ($(#[$attribute:meta])* $visibility:vis fn $entry:ident, fn $name:ident $arguments:tt = $generic:ident;) => {
        $crate::evaluate::instruction_set::kernel!(fn $name $arguments = $generic;);
        $crate::evaluate::instruction_set::kernel!(@entry $(#[$attribute])* $visibility fn $entry, $name $arguments);
    };
    (@entry $(#[$attribute:meta])* $visibility:vis fn $entry:ident, $name:ident ($($argument:ident: $type:ty),* $(,)?)) => {
        $(#[$attribute])*
        $visibility fn $entry($($argument: $type),*) {
            use $crate::evaluate::instruction_set as set;
            match set::InstructionSet::detect() {
                set::InstructionSet::Avx512 => $name::<{ set::AVX512 }>($($argument),*),
                set::InstructionSet::Avx2 => $name::<{ set::AVX2 }>($($argument),*),
                set::InstructionSet::Neon | set::InstructionSet::Baseline => $name::<{ set::PLAIN }>($($argument),*),
            }
        }
    };
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident ($($argument:ident: $type:ty),* $(,)?) = $generic:ident;) => {
        $(#[$attribute])*
        #[inline(always)]
        #[expect(unsafe_code, reason = "functions compiled for instructions that the processor may lack; it is asked first")]
        $visibility fn $name<const SET: u8>($($argument: $type),*) {
            use $crate::evaluate::instruction_set as set;
            #[cfg(target_arch = "x86_64")]
            {
                #[inline(never)]
                #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,bmi1,bmi2")]
                unsafe fn avx512($($argument: $type),*) {
                    $generic::<{ set::AVX512 }>($($argument),*);
                }
                #[inline(never)]
                #[target_feature(enable = "avx2,fma,bmi1,bmi2")]
                unsafe fn avx2($($argument: $type),*) {
                    $generic::<{ set::AVX2 }>($($argument),*);
                }
                match SET {
                    // SAFETY: only an entry that asked the processor instantiates this set.
                    set::AVX512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: as above.
                    set::AVX2 => return unsafe { avx2($($argument),*) },
                    _ => {}
                }
            }
            #[inline(never)]
            fn plain($($argument: $type),*) {
                $generic::<{ set::PLAIN }>($($argument),*);
            }
            plain($($argument),*)
        }
    };
}
pub(crate) use kernel;
