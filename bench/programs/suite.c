/* Compute programs of `npm run bench`: each prints one result, the same on every machine. No input, no libraries but libc. */
#define _GNU_SOURCE
#include <emmintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t state = 88172645463325252u;
static uint64_t next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

/* Multiplies, divides and shifts in registers. */
static uint64_t integer(void) {
  uint64_t sum = 1;
  for (uint64_t i = 1; i < 300000000; i++) {
    sum = sum * 6364136223846793005u + i;
    if ((i & 15) == 0) sum ^= sum / (i | 3);
    sum = (sum << 7) | (sum >> 57);
  }
  return sum;
}

/* A sort of random numbers by an own quicksort: branches that nobody predicts. */
static void quicksort(uint32_t *a, long low, long high) {
  while (low < high) {
    uint32_t pivot = a[(low + high) / 2];
    long i = low, j = high;
    while (i <= j) {
      while (a[i] < pivot) i++;
      while (a[j] > pivot) j--;
      if (i <= j) {
        uint32_t swap = a[i];
        a[i++] = a[j];
        a[j--] = swap;
      }
    }
    if (j - low < high - i) {
      quicksort(a, low, j);
      low = i;
    } else {
      quicksort(a, i, high);
      high = j;
    }
  }
}
static uint64_t branchy(void) {
  enum { COUNT = 1500000 };
  uint32_t *a = malloc(COUNT * sizeof *a);
  uint64_t sum = 0;
  for (int round = 0; round < 3; round++) {
    for (long i = 0; i < COUNT; i++) a[i] = (uint32_t)next();
    quicksort(a, 0, COUNT - 1);
    for (long i = 0; i < COUNT; i += 997) sum = sum * 31 + a[i];
  }
  return sum;
}

/* Recursion and calls through pointers. */
static __attribute__((noinline)) uint64_t fibonacci(uint64_t n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
static __attribute__((noinline)) uint64_t op_add(uint64_t a, uint64_t b) { return a + b; }
static __attribute__((noinline)) uint64_t op_xor(uint64_t a, uint64_t b) { return a ^ (b << 1); }
static __attribute__((noinline)) uint64_t op_sub(uint64_t a, uint64_t b) { return a * 3 - b; }
static __attribute__((noinline)) uint64_t op_rot(uint64_t a, uint64_t b) { return (a << 5 | a >> 59) + b; }
static uint64_t calls(void) {
  uint64_t (*const volatile table[4])(uint64_t, uint64_t) = {op_add, op_xor, op_sub, op_rot};
  uint64_t sum = fibonacci(36);
  for (uint64_t i = 0; i < 30000000; i++) sum = table[(sum >> 7) & 3](sum, i);
  return sum;
}

/* Packed integers and doubles. */
static uint64_t sse2(void) {
  static float x[4096] __attribute__((aligned(16)));
  static uint8_t b[16384] __attribute__((aligned(16)));
  for (int i = 0; i < 4096; i++) x[i] = (float)(next() & 0xffff) / 7;
  for (int i = 0; i < 16384; i++) b[i] = (uint8_t)next();
  __m128 f = _mm_setzero_ps();
  __m128d d = _mm_set1_pd(1);
  __m128i n = _mm_setzero_si128();
  for (int round = 0; round < 12000; round++) {
    for (int i = 0; i < 4096; i += 8) {
      __m128 v = _mm_load_ps(x + i);
      f = _mm_add_ps(_mm_mul_ps(f, _mm_set1_ps(0.5f)), v);
      d = _mm_add_pd(_mm_div_pd(d, _mm_set1_pd(1.5)), _mm_cvtps_pd(v));
      __m128i c = _mm_load_si128((const __m128i *)(b + i * 4));
      n = _mm_add_epi64(n, _mm_sad_epu8(c, _mm_shuffle_epi32(c, 0x4e)));
    }
  }
  uint64_t out[2];
  double doubles[2];
  float floats[4];
  _mm_storeu_si128((__m128i *)out, n);
  _mm_storeu_pd(doubles, d);
  _mm_storeu_ps(floats, f);
  return out[0] ^ (uint64_t)(doubles[0] * 1000) ^ (uint64_t)(floats[1] * 1000);
}

/* The 80-bit registers. */
static uint64_t x87(void) {
  long double sum = 0, x = 1.0L;
  for (int i = 1; i < 12000000; i++) {
    x = x * 1.0000001L + 1.0L / i;
    sum += x - (long double)(i % 7) * 0.125L;
  }
  return (uint64_t)(sum * 1024);
}

/* A ring of pointers in random order over 32 MiB: caches and TLB. */
static uint64_t chase(void) {
  enum { COUNT = 1 << 19 };
  struct node {
    struct node *next;
    uint64_t pad[7];
  } *nodes = malloc(COUNT * sizeof *nodes);
  uint32_t *order = malloc(COUNT * sizeof *order);
  for (uint32_t i = 0; i < COUNT; i++) order[i] = i;
  for (uint32_t i = COUNT - 1; i > 0; i--) {
    uint32_t j = (uint32_t)(next() % (i + 1)), swap = order[i];
    order[i] = order[j];
    order[j] = swap;
  }
  for (uint32_t i = 0; i < COUNT; i++) nodes[order[i]].next = &nodes[order[(i + 1) % COUNT]];
  struct node *at = nodes;
  for (int i = 0; i < 8000000; i++) at = at->next;
  return (uint64_t)(at - nodes);
}

/* Copies and comparisons of 1 MiB. */
static uint64_t copies(void) {
  enum { BYTES = 1 << 20 };
  char *a = malloc(BYTES), *b = malloc(BYTES);
  for (int i = 0; i < BYTES; i++) a[i] = (char)next();
  uint64_t sum = 0;
  for (int round = 0; round < 1500; round++) {
    memcpy(b, a, BYTES);
    b[round & 1023] ^= 1;
    sum += (memcmp(a + 2048, b + 2048, BYTES - 2048) < 0) + (uint8_t)b[round];
    memset(a + (round & 511), round, 512);
  }
  return sum;
}

static uint64_t syscalls(void) {
  uint64_t sum = 0;
  for (int i = 0; i < 1500000; i++) sum += (uint64_t)syscall(SYS_getppid) + 1;
  return sum > 0;
}

/* Two processes that wake each other through pipes. */
static uint64_t switches(void) {
  int there[2], back[2];
  if (pipe(there) || pipe(back)) return 0;
  enum { ROUNDS = 60000 };
  char byte = 0;
  pid_t child = fork();
  if (child == 0) {
    for (int i = 0; i < ROUNDS; i++)
      if (read(there[0], &byte, 1) != 1 || write(back[1], &byte, 1) != 1) _exit(1);
    _exit(0);
  }
  for (int i = 0; i < ROUNDS; i++)
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) return 0;
  int status = 1;
  waitpid(child, &status, 0);
  return status == 0 ? ROUNDS : 0;
}

/* First touches of fresh pages. */
static uint64_t faults(void) {
  enum { PAGES = 4096 };
  uint64_t sum = 0;
  for (int round = 0; round < 40; round++) {
    char *at = mmap(0, PAGES * 4096L, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return 0;
    madvise(at, PAGES * 4096L, MADV_NOHUGEPAGE);
    for (long page = 0; page < PAGES; page++) at[page * 4096] = (char)page;
    sum += (uint8_t)at[4096 * 77L] + 1;
    munmap(at, PAGES * 4096L);
  }
  return sum;
}

int main(int count, char **arguments) {
  static const struct {
    const char *name;
    uint64_t (*run)(void);
  } programs[] = {{"integer", integer},   {"branchy", branchy}, {"calls", calls},       {"sse2", sse2},
                  {"x87", x87},           {"chase", chase},     {"copies", copies},     {"syscalls", syscalls},
                  {"switches", switches}, {"faults", faults}};
  for (unsigned i = 0; count > 1 && i < sizeof programs / sizeof *programs; i++)
    if (strcmp(arguments[1], programs[i].name) == 0) {
      printf("%016llx\n", (unsigned long long)programs[i].run());
      return 0;
    }
  return 2;
}
