// Random numbers by counting: word `index` of a replicate is a function of its key alone, the same on every device to the
// last bit. The host's face of this is src/fit/replicates.rs.

// Threefry-2x32 of 20 rounds (Salmon et al. 2011).
fn threefry(key: vec2<u32>, counter: vec2<u32>) -> vec2<u32> {
    let third = 0x1bd11bdau ^ key.x ^ key.y;
    var x = counter + key;
    x = four_rounds(x, vec4<u32>(13u, 15u, 26u, 6u)) + vec2<u32>(key.y, third + 1u);
    x = four_rounds(x, vec4<u32>(17u, 29u, 16u, 24u)) + vec2<u32>(third, key.x + 2u);
    x = four_rounds(x, vec4<u32>(13u, 15u, 26u, 6u)) + vec2<u32>(key.x, key.y + 3u);
    x = four_rounds(x, vec4<u32>(17u, 29u, 16u, 24u)) + vec2<u32>(key.y, third + 4u);
    return four_rounds(x, vec4<u32>(13u, 15u, 26u, 6u)) + vec2<u32>(third, key.x + 5u);
}

fn four_rounds(start: vec2<u32>, turns: vec4<u32>) -> vec2<u32> {
    return one_round(one_round(one_round(one_round(start, turns.x), turns.y), turns.z), turns.w);
}

fn one_round(x: vec2<u32>, turn: u32) -> vec2<u32> {
    let sum = x.x + x.y;
    return vec2<u32>(sum, ((x.y << turn) | (x.y >> (32u - turn))) ^ sum);
}

fn word(key: vec2<u32>, replicate: u32, index: u32) -> u32 {
    let pair = threefry(key, vec2<u32>(replicate, index >> 1u));
    return select(pair.x, pair.y, (index & 1u) == 1u);
}

// Uniform on (0, 1), never an end: the middles of 2^23 cells, each exact.
fn unit(word: u32) -> f32 {
    return (f32(word >> 9u) + 0.5) * 1.1920928955078125e-7;
}

// Uniform on 0..count: the high half of a product of 32 bits each, from products of 16.
fn below(word: u32, count: u32) -> u32 {
    let lower = (word & 0xffffu) * (count & 0xffffu);
    let left = (word >> 16u) * (count & 0xffffu);
    let right = (word & 0xffffu) * (count >> 16u);
    let middle = (lower >> 16u) + (left & 0xffffu) + (right & 0xffffu);
    return (word >> 16u) * (count >> 16u) + (left >> 16u) + (right >> 16u) + (middle >> 16u);
}
