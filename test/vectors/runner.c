/*
 * Executes instruction cases on the processor that this program runs on.
 *
 * One case costs one signal: the handler for the previous case writes the next case's complete state into the signal
 * frame, sigreturn loads it, TF makes the processor trap after one instruction (or a fault ends it earlier), and the
 * frame of that signal holds the complete result. Nothing of this program runs between the two.
 *
 *     runner < cases > results
 *     runner --ldt: status 0 where cases with segments of an LDT can run
 *
 * Input:  u32 count, u32 0, data window (8192), read-only page (4096), then `count` times
 *           u32 bytes of this record (a multiple of 8), u32 mode (bit 0: 0 one instruction, 1 until INT3 at `stop`; bits 8 to
 *           23: numbers of the segments in CS, SS, DS, ES, see `state.ts`)
 *           state (576), u64 stop, u32 code bytes, u32 patches, code padded to 8,
 *           patches: u32 address, u32 bytes, content padded to 8
 * Output: for each case
 *           u32 bytes of this record, u32 vector (0xff none, 0xfe not finished), u64 error code, u64 CR2, state (576),
 *           u32 changes, u32 0, changes: u32 address, u32 bytes, content padded to 8
 * State:  rax rcx rdx rbx rsp rbp rsi rdi r8..r15, rip, rflags, fs base, gs base, first 416 bytes of an FXSAVE64 image.
 */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define CODE 0x10000000UL
#define CODE_BYTES 8192
#define DATA 0x20000000UL
#define DATA_BYTES 8192
#define CONSTANT 0x20004000UL
#define CONSTANT_BYTES 4096
#define STATE_BYTES 576
#define FX_BYTES 416
#define REPEAT_LIMIT 20000

/* Segments by number, as in state.ts; the LDT holds those with TI. */
static const uint16_t code_selectors[4] = {0x33, 0x23, 0x07, 0x0f};
static const uint64_t code_bases[4] = {0, 0, CODE, CODE};
static const uint16_t data_selectors[7] = {0, 0x2b, 0x17, 0x1f, 0x27, 0x2f, 0x37};
static const struct user_desc ldt[] = {
    {.entry_number = 0, .base_addr = CODE, .limit = 0x1fff, .contents = 2},
    {.entry_number = 1, .base_addr = CODE, .limit = 0x17f0, .seg_32bit = 1, .contents = 2},
    {.entry_number = 2, .base_addr = DATA, .limit = 0x1fff, .seg_32bit = 1},
    {.entry_number = 3, .base_addr = DATA, .limit = 0x1ffc},
    {.entry_number = 4, .base_addr = DATA - 0x1000, .limit = 0xfff, .seg_32bit = 1, .contents = 1},
    {.entry_number = 5, .base_addr = DATA - 0x1000, .limit = 0x1003, .contents = 1},
    {.entry_number = 6, .base_addr = DATA, .limit = 0x1fff, .seg_32bit = 1, .read_exec_only = 1},
    {.entry_number = 7, .base_addr = DATA, .limit = 0x1fff, .seg_32bit = 1, .seg_not_present = 1},
    {.entry_number = 8, .base_addr = CODE, .limit = 0x1fff, .seg_32bit = 1, .contents = 2, .seg_not_present = 1},
    {.entry_number = 9, .base_addr = CODE, .limit = 0x1fff, .seg_32bit = 1, .contents = 2, .read_exec_only = 1},
};

static const int registers[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static uint8_t *code_alias, *constant_alias;
static uint8_t pristine_data[DATA_BYTES], expected_data[DATA_BYTES], pristine_constant[CONSTANT_BYTES];
static uint8_t *input, *input_cursor, *output_cursor, *output;
static uint32_t remaining;
static int started;
static uint8_t *current;
static uint32_t steps;
static uint64_t own_fs, own_gs;
static greg_t saved_gregs[NGREG];
static uint8_t saved_fx[FX_BYTES];
/* Where a signal frame keeps PKRU, 0 without protection keys: a case must not see what WRPKRU of another one left. */
static uint32_t pkru_offset, saved_pkru;

static inline uint32_t read32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t read64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline void write32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void write64(uint8_t *p, uint64_t v) { memcpy(p, &v, 8); }
static inline uint64_t get_fs(void) { uint64_t v; __asm__ volatile("rdfsbase %0" : "=r"(v)); return v; }
static inline uint64_t get_gs(void) { uint64_t v; __asm__ volatile("rdgsbase %0" : "=r"(v)); return v; }
static inline void set_fs(uint64_t v) { __asm__ volatile("wrfsbase %0" ::"r"(v)); }
static inline void set_gs(uint64_t v) { __asm__ volatile("wrgsbase %0" ::"r"(v)); }

/* A repeated string instruction traps after each iteration, with rip still on it. */
static int is_repeated(const uint8_t *code, uint32_t bytes) {
    int repeat = 0;
    uint32_t i = 0;
    for (; i < bytes; i++) {
        uint8_t b = code[i];
        if (b == 0xf2 || b == 0xf3) repeat = 1;
        else if (b != 0x66 && b != 0x67 && b != 0x2e && b != 0x36 && b != 0x3e && b != 0x26 && b != 0x64 &&
                 b != 0x65 && b != 0xf0 && (b & 0xf0) != 0x40)
            break;
    }
    if (i == bytes || !repeat) return 0;
    uint8_t op = code[i];
    return (op >= 0x6c && op <= 0x6f) || (op >= 0xa4 && op <= 0xa7) || (op >= 0xaa && op <= 0xaf);
}

/* Writes a patch where it belongs; the generator keeps it inside one mapping. */
static void patch(uint32_t address, const uint8_t *bytes, uint32_t length) {
    if (address >= DATA && address + length <= DATA + DATA_BYTES) {
        memcpy((uint8_t *)DATA + (address - DATA), bytes, length);
        memcpy(expected_data + (address - DATA), bytes, length);
    } else if (address >= CONSTANT && address + length <= CONSTANT + CONSTANT_BYTES) {
        memcpy(constant_alias + (address - CONSTANT), bytes, length);
    } else {
        static const char text[] = "runner: a patch outside the windows\n";
        if (write(2, text, sizeof text - 1)) _exit(3);
    }
}

static void unpatch(uint32_t address, uint32_t length) {
    if (address >= DATA && address < DATA + DATA_BYTES) {
        memcpy((uint8_t *)DATA + (address - DATA), pristine_data + (address - DATA), length);
        memcpy(expected_data + (address - DATA), pristine_data + (address - DATA), length);
    } else {
        memcpy(constant_alias + (address - CONSTANT), pristine_constant + (address - CONSTANT), length);
    }
}

static inline uint32_t padded(uint32_t n) { return (n + 7) & ~7u; }

static void write_code(const uint8_t *record, int clear) {
    uint64_t rip = read64(record + 8 + 128) + code_bases[read32(record + 4) >> 8 & 15];
    uint32_t length = read32(record + 8 + STATE_BYTES + 8);
    uint64_t room = CODE + CODE_BYTES - rip;
    if (length > room) length = (uint32_t)room;
    if (clear) memset(code_alias + (rip - CODE), 0xcc, length);
    else memcpy(code_alias + (rip - CODE), record + 8 + STATE_BYTES + 16, length);
}

static void finish(ucontext_t *uc, uint64_t fs, uint64_t gs) {
    greg_t *g = uc->uc_mcontext.gregs;
    uint8_t *fx = (uint8_t *)uc->uc_mcontext.fpregs;
    uint8_t *record = current, *out = output_cursor;
    uint32_t vector = (uint32_t)g[REG_TRAPNO];
    uint32_t mode = read32(record + 4) & 1;
    uint64_t stop = read64(record + 8 + STATE_BYTES);
    uint64_t rip = (uint64_t)g[REG_RIP];
    if (mode == 0 && vector == 1) vector = 0xff;
    if (mode == 1 && vector == 3 && rip == stop + 1) { vector = 0xff; rip = stop; }
    if (steps > REPEAT_LIMIT) vector = 0xfe;
    write32(out + 4, vector);
    write64(out + 8, vector >= 0xfe ? 0 : (uint64_t)g[REG_ERR]);
    write64(out + 16, vector == 14 ? (uint64_t)g[REG_CR2] : 0);
    uint8_t *s = out + 24;
    for (int i = 0; i < 16; i++) write64(s + i * 8, (uint64_t)g[registers[i]]);
    write64(s + 128, rip);
    write64(s + 136, (uint64_t)g[REG_EFL]);
    write64(s + 144, fs);
    write64(s + 152, gs);
    memcpy(s + 160, fx, FX_BYTES);
    uint64_t present = read64(fx + 512);
    if (!(present & 1)) {
        /* The component is in its initial state and the image may hold anything. */
        memset(s + 160, 0, 24);
        s[160] = 0x7f, s[161] = 0x03;
        memset(s + 160 + 32, 0, 128);
    }
    if (!(present & 2)) memset(s + 160 + 160, 0, 256);
    uint8_t *count = out + 24 + STATE_BYTES, *p = count + 8;
    uint32_t changes = 0;
    const uint8_t *data = (const uint8_t *)DATA;
    if (memcmp(data, expected_data, DATA_BYTES) != 0) {
        uint32_t i = 0;
        while (i < DATA_BYTES) {
            if ((i & 7) == 0 && read64(data + i) == read64(expected_data + i)) { i += 8; continue; }
            if (data[i] == expected_data[i]) { i++; continue; }
            uint32_t end = i + 1, last = i + 1;
            while (end < DATA_BYTES && end - last < 8) {
                if (data[end] != expected_data[end]) last = end + 1;
                end++;
            }
            write32(p, (uint32_t)DATA + i);
            write32(p + 4, last - i);
            write64(p + 8 + padded(last - i) - 8, 0);
            memcpy(p + 8, data + i, last - i);
            unpatch((uint32_t)DATA + i, last - i);
            p += 8 + padded(last - i);
            changes++;
            i = last;
        }
    }
    write32(count, changes);
    write32(count + 4, 0);
    write32(out, (uint32_t)(p - out));
    output_cursor = p;

    uint32_t length = read32(record + 8 + STATE_BYTES + 8), patches = read32(record + 8 + STATE_BYTES + 12);
    const uint8_t *q = record + 8 + STATE_BYTES + 16 + padded(length);
    for (uint32_t i = 0; i < patches; i++) {
        unpatch(read32(q), read32(q + 4));
        q += 8 + padded(read32(q + 4));
    }
    write_code(record, 1);
}

/* In the standard format that signal frames have (SDM volume 1, 13.4.3). */
static void find_pkru(const uint8_t *fx) {
    uint32_t a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(c & 1 << 4)) return;
    if (!__get_cpuid_count(13, 9, &a, &b, &c, &d) || a < 4) return;
    pkru_offset = b;
    saved_pkru = read64(fx + 512) & 1 << 9 ? read32(fx + b) : 0;
}

static void load_data_segments(void) {
    uint32_t mode = read32(current + 4);
    __asm__ volatile("mov %0, %%ds\n\tmov %1, %%es" ::"r"((uint32_t)data_selectors[mode >> 16 & 15]),
                     "r"((uint32_t)data_selectors[mode >> 20 & 15]));
}

static void begin(ucontext_t *uc) {
    greg_t *g = uc->uc_mcontext.gregs;
    uint8_t *fx = (uint8_t *)uc->uc_mcontext.fpregs;
    if (remaining == 0) {
        memcpy(g, saved_gregs, sizeof saved_gregs);
        memcpy(fx, saved_fx, FX_BYTES);
        g[REG_RIP] += 2;
        return;
    }
    remaining--;
    current = input_cursor;
    input_cursor += read32(current);
    steps = 0;
    const uint8_t *s = current + 8;
    for (int i = 0; i < 16; i++) g[registers[i]] = (greg_t)read64(s + i * 8);
    g[REG_RIP] = (greg_t)read64(s + 128);
    g[REG_EFL] = (greg_t)(read64(s + 136) | ((read32(current + 4) & 1) == 0 ? 0x100 : 0));
    uint32_t cs = read32(current + 4) >> 8 & 15, ss = read32(current + 4) >> 12 & 15;
    g[REG_CSGSFS] = saved_gregs[REG_CSGSFS];
    if (cs != 0)
        g[REG_CSGSFS] = (greg_t)(code_selectors[cs] | (uint64_t)data_selectors[ss] << 48);
    memcpy(fx, s + 160, FX_BYTES);
    write64(fx + 512, read64(fx + 512) | 3);
    if (pkru_offset != 0) {
        write64(fx + 512, read64(fx + 512) | 1 << 9);
        write32(fx + pkru_offset, saved_pkru);
    }
    write_code(current, 0);
    uint32_t length = read32(s + STATE_BYTES + 8), patches = read32(s + STATE_BYTES + 12);
    const uint8_t *q = s + STATE_BYTES + 16 + padded(length);
    for (uint32_t i = 0; i < patches; i++) {
        patch(read32(q), q + 8, read32(q + 4));
        q += 8 + padded(read32(q + 4));
    }
    set_gs(read64(s + 152));
    set_fs(read64(s + 144));
    load_data_segments();
}

static void handle(int signal, siginfo_t *info, void *context) {
    /* AC, NT and the segment bases are the case's; none of this program's own code may run with them. */
    __asm__ volatile("pushq $2\n\tpopfq" ::: "cc", "memory");
    uint64_t fs = get_fs(), gs = get_gs();
    __asm__ volatile("mov %0, %%ds\n\tmov %0, %%es\n\tmov %0, %%fs\n\tmov %0, %%gs" ::"r"(0));
    set_fs(own_fs);
    set_gs(own_gs);
    ucontext_t *uc = context;
    (void)signal;
    (void)info;
    if (!started) {
        started = 1;
        memcpy(saved_gregs, uc->uc_mcontext.gregs, sizeof saved_gregs);
        memcpy(saved_fx, uc->uc_mcontext.fpregs, FX_BYTES);
        find_pkru((const uint8_t *)uc->uc_mcontext.fpregs);
        begin(uc);
        return;
    }
    greg_t *g = uc->uc_mcontext.gregs;
    if (g[REG_TRAPNO] == 1 && (uint64_t)g[REG_RIP] == read64(current + 8 + 128) && (read32(current + 4) & 1) == 0 &&
        is_repeated(current + 8 + STATE_BYTES + 16, read32(current + 8 + STATE_BYTES + 8)) &&
        ++steps <= REPEAT_LIMIT) {
        set_gs(gs);
        set_fs(fs);
        load_data_segments();
        return;
    }
    finish(uc, fs, gs);
    begin(uc);
}

static uint8_t *map_twice(uint64_t address, size_t bytes, int protection) {
    int fd = memfd_create("vectors", 0);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0) { perror("runner: memfd"); exit(2); }
    void *wanted = mmap((void *)address, bytes, protection, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
    void *alias = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (wanted != (void *)address || alias == MAP_FAILED) { perror("runner: mmap"); exit(2); }
    close(fd);
    memset(alias, 0xcc, bytes);
    return alias;
}

static uint8_t *read_all(size_t *total) {
    size_t room = 1 << 20, used = 0;
    uint8_t *buffer = malloc(room);
    for (;;) {
        if (used == room) buffer = realloc(buffer, room *= 2);
        ssize_t n = read(0, buffer + used, room - used);
        if (n < 0) { perror("runner: read"); exit(2); }
        if (n == 0) break;
        used += (size_t)n;
    }
    *total = used;
    return buffer;
}

int main(int argc, char **argv) {
    size_t total;
    /* Asked whether this kernel has an LDT. */
    if (argc > 1) return syscall(SYS_modify_ldt, 0x11, ldt, sizeof *ldt) == 0 ? 0 : 1;
    input = read_all(&total);
    if (total < 8 + DATA_BYTES + CONSTANT_BYTES) { fputs("runner: input is too short\n", stderr); return 2; }
    remaining = read32(input);
    memcpy(pristine_data, input + 8, DATA_BYTES);
    memcpy(expected_data, pristine_data, DATA_BYTES);
    memcpy(pristine_constant, input + 8 + DATA_BYTES, CONSTANT_BYTES);
    input_cursor = input + 8 + DATA_BYTES + CONSTANT_BYTES;
    size_t room = (size_t)remaining * (24 + STATE_BYTES + 8 + DATA_BYTES * 2) + 4096;
    output = output_cursor =
        mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (output == MAP_FAILED) { perror("runner: output"); return 2; }

    code_alias = map_twice(CODE, CODE_BYTES, PROT_READ | PROT_EXEC);
    constant_alias = map_twice(CONSTANT, CONSTANT_BYTES, PROT_READ);
    memcpy(constant_alias, pristine_constant, CONSTANT_BYTES);
    if (mmap((void *)DATA, DATA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
             -1, 0) != (void *)DATA) { perror("runner: data"); return 2; }
    memcpy((void *)DATA, pristine_data, DATA_BYTES);

    /* Present in the page tables before the first case: a write to them is then a protection violation. */
    volatile uint8_t seen = 0;
    for (size_t i = 0; i < CODE_BYTES; i += 4096) seen += ((volatile uint8_t *)CODE)[i];
    for (size_t i = 0; i < CONSTANT_BYTES; i += 4096) seen += ((volatile uint8_t *)CONSTANT)[i];

    stack_t stack = {.ss_size = 1 << 18};
    stack.ss_sp = mmap(NULL, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    const int signals[] = {SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE};
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, NULL);
    /* Where the kernel has no LDT only cases of 64-bit mode and with flat segments can run. */
    for (unsigned i = 0; i < sizeof ldt / sizeof *ldt; i++) syscall(SYS_modify_ldt, 0x11, ldt + i, sizeof *ldt);
    own_fs = get_fs();
    own_gs = get_gs();
    alarm(1200);
    __asm__ volatile("ud2" ::: "memory", "cc");

    for (uint8_t *p = output; p < output_cursor;) {
        ssize_t n = write(1, p, (size_t)(output_cursor - p));
        if (n <= 0) { perror("runner: write"); return 2; }
        p += n;
    }
    return 0;
}
