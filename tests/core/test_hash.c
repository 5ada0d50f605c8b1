/* SipHash-2-4-128 against the known answers of its authors' reference implementation; the content hash against it. */
#include "check.h"
#include "diffence.h"

#include <stdlib.h>
#include <string.h>

static uint8_t key[16];

static void test_known_answers(void) {
    /* Key 00 01 .. 0f, messages 00 01 .. of the given length. */
    static const struct {
        size_t size;
        uint8_t hash[16];
    } known[] = {
        {0, {0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93}},
        {1, {0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc, 0x45}},
        {2, {0x81, 0x77, 0x22, 0x8d, 0xa4, 0xa4, 0x5d, 0xc7, 0xfc, 0xa3, 0x8b, 0xde, 0xf6, 0x0a, 0xff, 0xe4}},
        {3, {0x9c, 0x70, 0xb6, 0x0c, 0x52, 0x67, 0xa9, 0x4e, 0x5f, 0x33, 0xb6, 0xb0, 0x29, 0x85, 0xed, 0x51}},
        {4, {0xf8, 0x81, 0x64, 0xc1, 0x2d, 0x9c, 0x8f, 0xaf, 0x7d, 0x0f, 0x6e, 0x7c, 0x7b, 0xcd, 0x55, 0x79}},
        {7, {0xa1, 0xf1, 0xeb, 0xbe, 0xd8, 0xdb, 0xc1, 0x53, 0xc0, 0xb8, 0x4a, 0xa6, 0x1f, 0xf0, 0x82, 0x39}},
        {8, {0x3b, 0x62, 0xa9, 0xba, 0x62, 0x58, 0xf5, 0x61, 0x0f, 0x83, 0xe2, 0x64, 0xf3, 0x14, 0x97, 0xb4}},
        {15, {0x54, 0x93, 0xe9, 0x99, 0x33, 0xb0, 0xa8, 0x11, 0x7e, 0x08, 0xec, 0x0f, 0x97, 0xcf, 0xc3, 0xd9}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint8_t message[16], hash[16];
        for (uint8_t byte = 0; byte < sizeof message; byte++) {
            message[byte] = byte;
        }
        df_siphash128(key, message, known[i].size, hash);
        CHECK(memcmp(hash, known[i].hash, sizeof hash) == 0, "%zu bytes", known[i].size);
    }
}

static void put_le32(uint8_t *bytes, uint32_t value) {
    for (int i = 0; i < 4; i++) {
        bytes[i] = (uint8_t)(value >> (8 * i));
    }
}

/* Odd and even numbers of pixels, and a tail on either side of the eight-byte blocks. */
static void test_content_hash_is_the_hash_of_the_bytes(void) {
    static const int32_t shapes[][3] = {{1, 1, 1}, {1, 1, 2}, {3, 5, 7}, {3, 32, 32}, {1, 8, 8}, {2, 3, 3}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int32_t *shape = shapes[s];
        size_t pixels = (size_t)(shape[0] * shape[1] * shape[2]);
        float *image = malloc(pixels * sizeof *image);
        uint8_t *bytes = malloc(12 + 4 * pixels);
        uint8_t expected[16], hash[16];
        for (int i = 0; i < 3; i++) {
            put_le32(bytes + 4 * i, (uint32_t)shape[i]);
        }
        for (size_t i = 0; i < pixels; i++) {
            uint32_t bits;
            image[i] = (float)i / (float)pixels;
            memcpy(&bits, image + i, 4);
            put_le32(bytes + 12 + 4 * i, bits);
        }
        df_siphash128(key, bytes, 12 + 4 * pixels, expected);
        df_content_hash(key, image, shape[0], shape[1], shape[2], hash);
        CHECK(memcmp(hash, expected, 16) == 0, "shape %zu", s);
        image[0] = -0.0f; /* was +0 */
        df_content_hash(key, image, shape[0], shape[1], shape[2], hash);
        CHECK(memcmp(hash, expected, 16) == 0, "shape %zu: -0 is not 0", s);
        free(image);
        free(bytes);
    }
}

static void test_everything_counts(void) {
    float image[12] = {0.25f, 0.5f, 0.75f};
    uint8_t base[16], hash[16], other_key[16];
    df_content_hash(key, image, 3, 2, 2, base);
    static const int32_t shapes[][3] = {{2, 3, 2}, {2, 2, 3}, {12, 1, 1}, {1, 12, 1}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        df_content_hash(key, image, shapes[s][0], shapes[s][1], shapes[s][2], hash);
        CHECK(memcmp(hash, base, 16) != 0, "shape %zu", s);
    }
    for (int i = 0; i < 12; i++) {
        image[i] += 0x1p-20f;
        df_content_hash(key, image, 3, 2, 2, hash);
        CHECK(memcmp(hash, base, 16) != 0, "pixel %d", i);
        image[i] -= 0x1p-20f;
    }
    for (int bit = 0; bit < 128; bit++) {
        memcpy(other_key, key, 16);
        other_key[bit / 8] ^= (uint8_t)(1 << bit % 8);
        df_content_hash(other_key, image, 3, 2, 2, hash);
        CHECK(memcmp(hash, base, 16) != 0, "key bit %d", bit);
    }
}

int main(void) {
    for (uint8_t i = 0; i < 16; i++) {
        key[i] = i;
    }
    test_known_answers();
    test_content_hash_is_the_hash_of_the_bytes();
    test_everything_counts();
    return check_report("hash");
}
