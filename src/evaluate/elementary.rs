//! Elementary functions of f64 without branches, so that the compiler turns loops over them into vector instructions.
//!
//! `SET` is the instruction set that the caller is compiled for; where it has no fused multiply-add, `mul_add` would be a
//! slow library call.
//! Accurate to about one unit in the last place over the whole range (a test holds them to two); subnormal results of
//! [`exp`] are flushed to zero. A call into the C library per lane is several times slower.

use super::instruction_set::BASELINE;

/// `a b + c`, fused where that is an instruction.
#[inline(always)]
pub fn fused<const SET: u8>(a: f64, b: f64, c: f64) -> f64 {
    if SET != BASELINE { a.mul_add(b, c) } else { a * b + c }
}

/// Adding this to a small f64 leaves its nearest integer in the low bits of the mantissa: 1.5 · 2^52.
const ROUNDER: f64 = 6_755_399_441_055_744.0;
const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// e^x; zero below −708.39, infinite above 709.78.
#[inline(always)]
pub fn exp<const SET: u8>(x: f64) -> f64 {
    // x = k ln 2 + r, |r| ≤ ln 2 / 2; e^r by its Taylor series, whose next term is below 4e-18.
    let shifted = fused::<SET>(x, std::f64::consts::LOG2_E, ROUNDER);
    let k = shifted - ROUNDER;
    let r = fused::<SET>(-LN2_LOW, k, fused::<SET>(-LN2_HIGH, k, x));
    const TAYLOR: [f64; 12] = [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
    ];
    let mut p: f64 = 1.0 / 6_227_020_800.0;
    for c in TAYLOR {
        p = fused::<SET>(p, r, c);
    }
    let p = fused::<SET>(p, r, 1.0);
    let scaled = f64::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 52));
    let scaled = if x < -708.396_418_532_264_1 { 0.0 } else { scaled };
    let scaled = if x > 709.782_712_893_384 { f64::INFINITY } else { scaled };
    if x.is_nan() { x } else { scaled }
}

/// e^x to a few parts in 10⁹, for searches: half the work of [`exp`]. Arguments beyond ±700 count as ±700, NaN as −700.
#[inline(always)]
pub fn exp_roughly<const SET: u8>(x: f64) -> f64 {
    let x = if x > -700.0 { x } else { -700.0 };
    let x = if x < 700.0 { x } else { 700.0 };
    // x = (k + r) ln 2, |r| ≤ ½; 2^r by its Taylor series, whose next term is below 6e-9.
    let shifted = fused::<SET>(x, std::f64::consts::LOG2_E, ROUNDER);
    let r = fused::<SET>(x, std::f64::consts::LOG2_E, ROUNDER - shifted);
    const TAYLOR: [f64; 7] = [
        1.540_353_039_338_161e-4,
        1.333_355_814_642_844_3e-3,
        9.618_129_107_628_477e-3,
        5.550_410_866_482_158e-2,
        2.402_265_069_591_007e-1,
        std::f64::consts::LN_2,
        1.0,
    ];
    let mut p: f64 = 1.525_273_380_405_984e-5;
    for c in TAYLOR {
        p = fused::<SET>(p, r, c);
    }
    f64::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 52))
}

/// The natural logarithm; −∞ at zero, NaN below.
#[inline(always)]
pub fn log<const SET: u8>(x: f64) -> f64 {
    // Subnormal numbers are scaled into the normal range first.
    let tiny = x < f64::MIN_POSITIVE;
    let value =
        log_of_scaled::<SET>(if tiny { x * 18_014_398_509_481_984.0 } else { x }, if tiny { 54.0 } else { 0.0 });
    let value = if x == f64::INFINITY { x } else { value };
    let value = if x == 0.0 { f64::NEG_INFINITY } else { value };
    if x >= 0.0 { value } else { f64::NAN }
}

/// The natural logarithm of what [`are_normal`] holds for: three quarters of the work.
#[inline(always)]
pub fn log_of_normal<const SET: u8>(x: f64) -> f64 {
    log_of_scaled::<SET>(x, 0.0)
}

/// Whether all numbers are positive, finite and not subnormal.
#[inline(always)]
pub fn are_normal(values: &[f64]) -> bool {
    let mut normal = true;
    for &x in values {
        normal &= (f64::MIN_POSITIVE..f64::INFINITY).contains(&x);
    }
    normal
}

/// log(y / 2^bias) of a normal y.
#[inline(always)]
fn log_of_scaled<const SET: u8>(y: f64, bias: f64) -> f64 {
    // y = 2^k m with m in [√½, √2): shift the exponent so that the split happens at √½.
    let bits = y.to_bits().wrapping_add(0x3ff0_0000_0000_0000 - 0x3fe6_a09e_667f_3bcd);
    let k = f64::from_bits(0x4338_0000_0000_0000u64.wrapping_add(bits >> 52)) - (ROUNDER + 1023.0) - bias;
    let m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff).wrapping_add(0x3fe6_a09e_667f_3bcd));
    // log m = f − f²/2 + s (f²/2 + R(s²)), s = f/(2 + f): the minimax R of fdlibm's e_log.
    let f = m - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let mut r: f64 = 1.479_819_860_511_658_6e-1;
    for c in [
        1.531_383_769_920_937_3e-1,
        1.818_357_216_161_805e-1,
        2.222_219_843_214_978_4e-1,
        2.857_142_874_366_239e-1,
        3.999_999_999_940_942e-1,
        6.666_666_666_666_735e-1,
    ] {
        r = fused::<SET>(r, z, c);
    }
    let r = r * z;
    let half = 0.5 * f * f;
    k * LN2_HIGH - ((half - fused::<SET>(s, half + r, k * LN2_LOW)) - f)
}

/// log(1 + x) without loss near zero: the rounding of 1 + x is put back to first order.
#[inline(always)]
pub fn log1p<const SET: u8>(x: f64) -> f64 {
    let u = 1.0 + x;
    let value = log::<SET>(u) + (x - (u - 1.0)) / u;
    if x == f64::INFINITY || u == 0.0 { log::<SET>(u) } else { value }
}

/// log(1 + e^z)
#[inline(always)]
pub fn softplus<const SET: u8>(z: f64) -> f64 {
    let tail = log1p::<SET>(exp::<SET>(-z.abs()));
    if z > 0.0 { z + tail } else { tail }
}

/// 1/(1 + e^−z)
#[inline(always)]
pub fn sigmoid<const SET: u8>(z: f64) -> f64 {
    let e = exp::<SET>(-z.abs());
    (if z >= 0.0 { 1.0 } else { e }) / (1.0 + e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::instruction_set::AVX2 as FUSED;

    /// Largest distance accepted, in units in the last place of the standard library's value.
    const ULPS: f64 = 2.0;

    fn ulps(found: f64, expected: f64) -> f64 {
        if found == expected || found.is_nan() && expected.is_nan() {
            return 0.0;
        }
        let unit = (f64::from_bits(expected.abs().to_bits() + 1) - expected.abs()).max(f64::MIN_POSITIVE);
        (found - expected).abs() / unit
    }

    fn check(name: &str, function: fn(f64) -> f64, reference: fn(f64) -> f64, arguments: impl Iterator<Item = f64>) {
        for x in arguments {
            let (found, expected) = (function(x), reference(x));
            let distance = ulps(found, expected);
            assert!(distance <= ULPS, "{name}({x:e}) = {found:e}, expected {expected:e}: {distance} ulps");
        }
    }

    #[test]
    fn the_rough_exponential_is_good_enough_to_search_with() {
        for x in (-70_000..70_000).map(|i| f64::from(i) * 0.010_001).filter(|x| x.abs() < 700.0) {
            for found in [exp_roughly::<FUSED>(x), exp_roughly::<BASELINE>(x)] {
                assert!((found / x.exp() - 1.0).abs() < 1e-8, "e^{x} = {found:e}, not {:e}", x.exp());
            }
        }
        let ends = [f64::NEG_INFINITY, f64::INFINITY, f64::NAN].map(exp_roughly::<FUSED>);
        assert!(ends[0] < 1e-303 && ends[1] > 1e303 && ends[2] < 1e-303, "{ends:?}");
    }

    fn wide() -> impl Iterator<Item = f64> {
        let specials =
            [0.0, f64::INFINITY, f64::NAN, f64::MIN_POSITIVE, 5e-324, 1.0, std::f64::consts::SQRT_2, f64::MAX];
        (-2000..2000).map(|i| (f64::from(i) * 0.354_321).exp2()).chain(specials)
    }

    fn both_signs() -> impl Iterator<Item = f64> {
        wide().flat_map(|x| [x, -x]).chain((-70_000..70_000).map(|i| f64::from(i) * 0.010_123))
    }

    #[test]
    fn functions_agree_with_the_standard_library() {
        check("exp", exp::<FUSED>, f64::exp, both_signs().filter(|x| !(-746.0..-708.0).contains(x)));
        check("exp without fma", exp::<BASELINE>, f64::exp, both_signs().filter(|x| !(-746.0..-708.0).contains(x)));
        check("log", log::<FUSED>, f64::ln, both_signs());
        check("log without fma", log::<BASELINE>, f64::ln, both_signs());
        check("log1p", log1p::<FUSED>, f64::ln_1p, both_signs().filter(|x| *x > -0.3 || *x < -1.0));
        check(
            "softplus",
            softplus::<FUSED>,
            |z| z.max(0.0) + (-z.abs()).exp().ln_1p(),
            both_signs().filter(|x| *x > -708.0),
        );
        let sigmoid_reference = |z: f64| (if z >= 0.0 { 1.0 } else { z.exp() }) / (1.0 + (-z.abs()).exp());
        check("sigmoid", sigmoid::<FUSED>, sigmoid_reference, both_signs().filter(|x| *x > -708.0));
    }
}
