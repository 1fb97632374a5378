// The 16 and 8 bit floating-point formats, to and from float, as torch rounds them (torch/headeronly/util/{Half,Float8_*}.h).
#include <stdint.h>
#include <string.h>

static inline uint32_t bits_of(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
static inline float from_bits(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }

static inline float half_to_float(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
  if (exponent == 31) return from_bits(sign | 0x7f800000 | (mantissa ? 0x400000 | mantissa << 13 : 0));
  if (exponent) return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
  return from_bits(bits_of((float)mantissa * 0x1p-24f) | sign);
}
static inline uint16_t float_to_half(float f) {  // to nearest, ties to even
  uint32_t u = bits_of(f), sign = u >> 16 & 0x8000;
  u &= 0x7fffffff;
  if (u > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (u >> 13 & 0x3ff));
  if (u >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
  if (u < 0x38800000) return (uint16_t)(sign | (bits_of(from_bits(u) + 0.5f) - 0x3f000000));
  return (uint16_t)(sign | (u - (112u << 23) + 0xfff + (u >> 13 & 1)) >> 13);
}

// A float8 has `mantissa` bits and exponent bias `bias`; "fnuz" formats have one NaN (0x80), no infinity and no -0.
static inline float narrow_to_float(uint8_t x, int mantissa, int bias, int fnuz) {
  int exponent = (x & 0x7f) >> mantissa, fraction = x & ((1 << mantissa) - 1);
  float sign = x & 0x80 ? -1.f : 1.f, value;
  if (fnuz && x == 0x80) return from_bits(0x7fc00000);
  if (!fnuz && mantissa == 2 && exponent == 31) value = fraction ? from_bits(0x7fc00000) : from_bits(0x7f800000);
  else if (!fnuz && mantissa == 3 && (x & 0x7f) == 0x7f) value = from_bits(0x7fc00000);
  else if (!exponent) value = (float)fraction * from_bits((uint32_t)(127 + 1 - bias - mantissa) << 23);
  else value = from_bits((uint32_t)(exponent + 127 - bias) << 23 | (uint32_t)fraction << (23 - mantissa));
  return sign * value;
}
static inline uint8_t float_to_narrow(float f, int mantissa, int bias, uint32_t limit, int fnuz) {
  uint32_t u = bits_of(f), sign = u & 0x80000000, result;
  uint32_t subnormal = (uint32_t)(127 - bias + 23 - mantissa + 1) << 23;  // adding it leaves the subnormal's bits in place
  u ^= sign;
  if (u >= limit) {
    if (fnuz) return 0x80;
    result = u > 0x7f800000 ? 0x7f : mantissa == 2 ? 0x7c : 0x7e;  // e4m3fn has no infinity: its largest, as torch since 2.13
  } else if (u < (uint32_t)(128 - bias) << 23) {
    result = bits_of(from_bits(u) + from_bits(subnormal)) - subnormal;
    if (fnuz && !result) return 0;
  } else {
    result = (u + ((uint32_t)(bias - 127) << 23) + (0x7fffffu >> (mantissa + 1)) + (u >> (23 - mantissa) & 1)) >> (23 - mantissa);
    if (!fnuz && mantissa == 3 && result == 0x7f) result = 0x7e;
  }
  return (uint8_t)(result | sign >> 24);
}
static inline float e5m2_to_float(uint8_t x) { return narrow_to_float(x, 2, 15, 0); }
static inline float e4m3fn_to_float(uint8_t x) { return narrow_to_float(x, 3, 7, 0); }
static inline float e5m2fnuz_to_float(uint8_t x) { return narrow_to_float(x, 2, 16, 1); }
static inline float e4m3fnuz_to_float(uint8_t x) { return narrow_to_float(x, 3, 8, 1); }
static inline uint8_t float_to_e5m2(float f) { return float_to_narrow(f, 2, 15, 143u << 23, 0); }
static inline uint8_t float_to_e4m3fn(float f) { return float_to_narrow(f, 3, 7, 1087u << 20, 0); }
static inline uint8_t float_to_e5m2fnuz(float f) { return float_to_narrow(f, 2, 16, 0x8fu << 23, 1); }
static inline uint8_t float_to_e4m3fnuz(float f) { return float_to_narrow(f, 3, 8, 0x87u << 23, 1); }
