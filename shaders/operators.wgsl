// The operators of a formula in f32, each accurate over its whole domain on every driver.
//
// WGSL has no log1p or expm1, lets `log` err by 2^-21 near 1, `exp` by 2|z| ulp, `atan` by 4096 ulp and `sin` by 2^-11;
// drivers use that freedom. These forms use only + - * /, sqrt and bits. No argument is NaN or infinite: what could be
// is refused before, by `is_tame` and its like, which read bits because a compiler may assume that comparisons of floats
// never meet a NaN. Compilers also turn `k * a + k * b` into `k * (a + b)`: constants in two parts are therefore multiplied
// once as integers and once as floats, which no compiler takes for the same factor.

const LARGEST_BITS: u32 = 0x7d000000u; // 1.06e37
const SMALLEST_BITS: u32 = 0x00800000u; // 1.18e-38, the smallest normal number
const EXP_HIGHEST: f32 = 88.0;
const EXP_LOWEST: f32 = -87.0;

// |z| < 1e37, neither NaN nor infinite
fn is_tame(z: f32) -> bool {
    return (bitcast<u32>(z) & 0x7fffffffu) < LARGEST_BITS;
}

// 1.2e-38 <= z < 1e37
fn is_tame_positive(z: f32) -> bool {
    return bitcast<u32>(z) - SMALLEST_BITS < LARGEST_BITS - SMALLEST_BITS;
}

// 1.2e-38 <= |z| < 1e37
fn is_tame_divisor(z: f32) -> bool {
    return is_tame_positive(abs(z));
}

// Where three parts of pi/2 reduce exactly: beyond it f32 itself resolves a thousandth of a radian at best.
fn is_tame_angle(z: f32) -> bool {
    return is_tame(z) && abs(z) <= 8192.0;
}

fn operator_negate(z: f32) -> f32 {
    return -z;
}

// exp z = 2^k exp r, |r| <= ln 2 / 2; the polynomial is Cephes' expf. Saturates at e^88, is 0 below e^-87.
fn operator_exp(z: f32) -> f32 {
    let a = clamp(z, EXP_LOWEST, EXP_HIGHEST);
    let k = round(a * 1.4426950408889634);
    // ln 2 = 355/512 - 2.1219e-4
    let r = (a - f32(i32(k) * 355) * 0.001953125) + k * 2.12194440e-4;
    var p = 1.9875691500e-4;
    p = fma(p, r, 1.3981999507e-3);
    p = fma(p, r, 8.3334519073e-3);
    p = fma(p, r, 4.1665795894e-2);
    p = fma(p, r, 1.6666665459e-1);
    p = fma(p, r, 5.0000001201e-1);
    let mantissa = 1.0 + fma(p, r * r, r);
    let power = bitcast<f32>(u32(i32(k) + 127) << 23u);
    return select(mantissa * power, 0.0, z < EXP_LOWEST);
}

// log(1 + f) for 1 + f in [sqrt(1/2), sqrt(2)], without its first-order term: 2 atanh(f/(2 + f)) - f (musl's logf).
fn logarithm_beyond_linear(f: f32) -> f32 {
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let odd = z * fma(w, 0.28498786688, 0.66666662693);
    let even = w * fma(w, 0.24279078841, 0.40000972152);
    let half = 0.5 * f * f;
    return fma(s, half + (odd + even), -half);
}

// z positive and normal
fn operator_log(z: f32) -> f32 {
    let shifted = bitcast<u32>(z) - 0x3f3504f3u;
    let k = bitcast<i32>(shifted) >> 23u;
    let f = bitcast<f32>((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0;
    // ln 2 = 90851/131072 + 9.058e-6
    return f32(k * 90851) * 7.62939453125e-6 + (f + fma(f32(k), 9.0580006145e-6, logarithm_beyond_linear(f)));
}

// z > -1
fn operator_log1p(z: f32) -> f32 {
    if z > -0.29 && z < 0.41 {
        return z + logarithm_beyond_linear(z);
    }
    return operator_log(1.0 + z);
}

fn operator_expm1(z: f32) -> f32 {
    if abs(z) < 0.35 {
        // Taylor's series: the first term left out is below 2e-9 of the sum.
        var p = 1.9841270e-4;
        p = fma(p, z, 1.3888889e-3);
        p = fma(p, z, 8.3333333e-3);
        p = fma(p, z, 4.1666667e-2);
        p = fma(p, z, 1.6666667e-1);
        p = fma(p, z, 0.5);
        return fma(p * z, z, z);
    }
    return operator_exp(z) - 1.0;
}

fn operator_sqrt(z: f32) -> f32 {
    return sqrt(z);
}

fn operator_abs(z: f32) -> f32 {
    return abs(z);
}

// sin and cos of the angle left after whole quarter turns, and the number of those.
struct Turned {
    sine: f32,
    cosine: f32,
    quarter: i32,
}

fn turn(z: f32) -> Turned {
    let k = round(z * 0.6366197723675814);
    let quarters = i32(k);
    // pi/2 = 201/128 + 2029/4194304 + 7.54979e-8; the first two products are exact.
    let r = ((z - f32(quarters * 201) * 0.0078125) - f32(quarters * 2029) * 2.384185791015625e-7) - k * 7.5497899548918822e-8;
    let s = r * r;
    var p = -1.9515295891e-4;
    p = fma(p, s, 8.3321608736e-3);
    p = fma(p, s, -1.6666654611e-1);
    let sine = fma(p * s, r, r);
    var q = 2.443315711809948e-5;
    q = fma(q, s, -1.388731625493765e-3);
    q = fma(q, s, 4.166664568298827e-2);
    let cosine = fma(q * s, s, fma(s, -0.5, 1.0));
    return Turned(sine, cosine, quarters & 3);
}

fn operator_sin(z: f32) -> f32 {
    let t = turn(z);
    let value = select(t.sine, t.cosine, (t.quarter & 1) == 1);
    return select(value, -value, t.quarter >= 2);
}

fn operator_cos(z: f32) -> f32 {
    let t = turn(z);
    let value = select(t.cosine, t.sine, (t.quarter & 1) == 1);
    return select(value, -value, t.quarter == 1 || t.quarter == 2);
}

fn operator_tan(z: f32) -> f32 {
    let t = turn(z);
    if (t.quarter & 1) == 1 {
        return -t.cosine / t.sine;
    }
    return t.sine / t.cosine;
}

// Cephes' atanf: two reductions, then an odd polynomial on |z| <= tan(pi/8).
fn operator_atan(z: f32) -> f32 {
    let a = abs(z);
    var base = 0.0;
    var x = a;
    if a > 2.414213562373095 {
        base = 1.5707963267948966;
        x = -1.0 / a;
    } else if a > 0.4142135623730950 {
        base = 0.7853981633974483;
        x = (a - 1.0) / (a + 1.0);
    }
    let s = x * x;
    var p = 8.05374449538e-2;
    p = fma(p, s, -1.38776856032e-1);
    p = fma(p, s, 1.99777106478e-1);
    p = fma(p, s, -3.33329491539e-1);
    let value = base + fma(p * s, x, x);
    return select(value, -value, z < 0.0);
}

fn operator_tanh(z: f32) -> f32 {
    let e = operator_expm1(-2.0 * abs(z));
    let value = -e / (2.0 + e);
    return select(value, -value, z < 0.0);
}

fn operator_softplus(z: f32) -> f32 {
    return max(z, 0.0) + operator_log1p(operator_exp(-abs(z)));
}

fn operator_sigmoid(z: f32) -> f32 {
    let e = operator_exp(-abs(z));
    return select(e, 1.0, z >= 0.0) / (1.0 + e);
}

fn operator_step(z: f32) -> f32 {
    return select(0.0, 1.0, z > 0.0);
}
