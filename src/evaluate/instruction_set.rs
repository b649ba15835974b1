//! Which vector instructions the processor has, asked once at run time, and the macro that compiles a kernel for each.
//!
//! A kernel is written once as an `#[inline(always)]` function over `const FMA: bool`; [`kernel_versions!`] wraps it into
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

/// `kernel_versions!(pub fn name(argument: Type, …) = generic;)` makes `name` call `generic::<FMA>` compiled for the best
/// instruction set that the processor has.
macro_rules! kernel_versions {
    ($(#[$attribute:meta])* $visibility:vis fn $name:ident $(<$($life:lifetime),*>)? ($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $generic:ident;) => {
        $(#[$attribute])*
        #[expect(unsafe_code, reason = "functions compiled for instructions that the processor may lack; it is asked first")]
        $visibility fn $name $(<$($life),*>)? ($($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,bmi1,bmi2")]
                unsafe fn avx512 $(<$($life),*>)? ($($argument: $type),*) $(-> $result)? {
                    $generic::<true>($($argument),*)
                }
                #[target_feature(enable = "avx2,fma,bmi1,bmi2")]
                unsafe fn avx2 $(<$($life),*>)? ($($argument: $type),*) $(-> $result)? {
                    $generic::<true>($($argument),*)
                }
                match $crate::evaluate::instruction_set::InstructionSet::detect() {
                    // SAFETY: the processor was just asked whether it has these instructions.
                    $crate::evaluate::instruction_set::InstructionSet::Avx512 => return unsafe { avx512($($argument),*) },
                    // SAFETY: as above.
                    $crate::evaluate::instruction_set::InstructionSet::Avx2 => return unsafe { avx2($($argument),*) },
                    _ => {}
                }
            }
            $generic::<{ cfg!(target_arch = "aarch64") }>($($argument),*)
        }
    };
}
pub(crate) use kernel_versions;
