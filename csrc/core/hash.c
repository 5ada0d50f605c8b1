/* SipHash-2-4 with 128 bits of output. Keyed, so that nobody without the key can find two images that share their
 * noise. All loads and stores are little-endian by arithmetic: every machine computes the same hash. */
#include "diffence.h"

#include <string.h>

typedef struct siphash {
    uint64_t v0, v1, v2, v3;
} siphash;

static uint64_t rotate(uint64_t value, int bits) {
    return value << bits | value >> (64 - bits);
}

static uint64_t load_le(const uint8_t *bytes, size_t size) {
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++) {
        value |= (uint64_t)bytes[i] << (8 * i);
    }
    return value;
}

static void store_le64(uint8_t *bytes, uint64_t value) {
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(value >> (8 * i));
    }
}

static void rounds(siphash *s, int count) {
    while (count-- > 0) {
        s->v0 += s->v1;
        s->v2 += s->v3;
        s->v1 = rotate(s->v1, 13) ^ s->v0;
        s->v3 = rotate(s->v3, 16) ^ s->v2;
        s->v0 = rotate(s->v0, 32);
        s->v2 += s->v1;
        s->v0 += s->v3;
        s->v1 = rotate(s->v1, 17) ^ s->v2;
        s->v3 = rotate(s->v3, 21) ^ s->v0;
        s->v2 = rotate(s->v2, 32);
    }
}

static siphash start(const uint8_t key[16]) {
    uint64_t k0 = load_le(key, 8), k1 = load_le(key + 8, 8);
    return (siphash){k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du ^ 0xee, k0 ^ 0x6c7967656e657261u,
                     k1 ^ 0x7465646279746573u};
}

static void absorb(siphash *s, uint64_t word) {
    s->v3 ^= word;
    rounds(s, 2);
    s->v0 ^= word;
}

/* tail: the last size % 8 bytes; the length's low byte goes on top of them. */
static void finish(siphash *s, uint64_t tail, uint64_t size, uint8_t hash[16]) {
    absorb(s, size << 56 | tail);
    s->v2 ^= 0xee;
    rounds(s, 4);
    store_le64(hash, s->v0 ^ s->v1 ^ s->v2 ^ s->v3);
    s->v1 ^= 0xdd;
    rounds(s, 4);
    store_le64(hash + 8, s->v0 ^ s->v1 ^ s->v2 ^ s->v3);
}

void df_siphash128(const uint8_t key[16], const void *data, size_t size, uint8_t hash[16]) {
    const uint8_t *bytes = data;
    siphash s = start(key);
    size_t whole = size - size % 8;
    for (size_t i = 0; i < whole; i += 8) {
        absorb(&s, load_le(bytes + i, 8));
    }
    finish(&s, whole < size ? load_le(bytes + whole, size % 8) : 0, size, hash);
}

/* The value's bits; -0 and 0 are the same grey. */
static uint64_t pixel(const float *value) {
    uint32_t bits;
    memcpy(&bits, value, sizeof bits);
    return bits == 0x80000000u ? 0 : bits;
}

/* The message is the three sizes and then the pixels, four bytes each. The third size shares its eight bytes with the
 * first pixel, so the pixels come in pairs from the second one on. */
void df_content_hash(const uint8_t key[16], const float *image, int32_t channels, int32_t height, int32_t width,
                     uint8_t hash[16]) {
    size_t pixels = (size_t)channels * (size_t)height * (size_t)width;
    siphash s = start(key);
    absorb(&s, (uint64_t)(uint32_t)height << 32 | (uint32_t)channels);
    uint64_t tail = (uint32_t)width;
    for (size_t i = 0; i < pixels; i++) {
        if (i % 2 == 0) {
            absorb(&s, pixel(image + i) << 32 | tail);
            tail = 0;
        } else {
            tail = pixel(image + i);
        }
    }
    finish(&s, tail, 12 + 4 * (uint64_t)pixels, hash);
}
