/* String instructions against a model that does one element after the other: random ones over
 * pages in disorder, mapped twice, read-only and absent; then what is special about one. */
#include "cpu/tests/guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CODE_AT  0x400000ull
#define WINDOW   0x600000ull
#define DEVICE   0x700000ull
#define PHYSICAL (GUEST_FREE + 0x10000u) /* page 0 of the window's memory */
#define PAGE     4096u
#define FLAGS    0x8d5u
#define DF       0x400u

/* The window's pages: which page of memory each is, -1 none; page 3 is page 0 again. */
static const struct {
        int page;
        bool writable;
} window[] = { { 0, true }, { 2, true }, { 1, true }, { 0, true }, { 3, false }, { -1, false } };
#define PAGES (sizeof(window) / sizeof(window[0]))
#define BYTES (4 * PAGE)

enum kind { MOVS, CMPS, STOS, SCAS, KINDS };
static const uint8_t opcodes[KINDS] = { 0xa4, 0xa6, 0xaa, 0xae };

struct string {
        enum kind kind;
        unsigned size, rep; /* rep: 0, 0xf2, 0xf3 */
        bool narrow;        /* 32-bit addresses */
};

/* What an instruction works on, in the guest and in the model. */
struct machine {
        uint64_t rax, rcx, rsi, rdi, rflags;
        uint64_t fault; /* address, 0 none */
        uint8_t memory[BYTES];
};

/* ---- the model ---- */

static int64_t place(uint64_t linear, bool write)
{
        uint64_t n = (linear - WINDOW) / PAGE;
        if (linear < WINDOW || n >= PAGES || window[n].page < 0 || (write && !window[n].writable))
                return -1;
        return window[n].page * (int64_t)PAGE + (int64_t)(linear % PAGE);
}

static bool reachable(struct machine *m, uint64_t linear, unsigned size, bool write)
{
        for (unsigned i = 0; i < size; i++) {
                if (place(linear + i, write) >= 0)
                        continue;
                m->fault = linear + i;
                return false;
        }
        return true;
}

static uint64_t get(const struct machine *m, uint64_t linear, unsigned size)
{
        uint64_t value = 0;
        for (unsigned i = 0; i < size; i++)
                value |= (uint64_t)m->memory[place(linear + i, false)] << 8 * i;
        return value;
}

static void put(struct machine *m, uint64_t linear, uint64_t value, unsigned size)
{
        for (unsigned i = 0; i < size; i++)
                m->memory[place(linear + i, true)] = (uint8_t)(value >> 8 * i);
}

static void compare(struct machine *m, uint64_t a, uint64_t b, unsigned size)
{
        uint64_t flags;
        unsigned shift = 64 - 8 * size; /* AF and PF are of the low byte */
        __asm__("cmpq %2, %1; pushfq; popq %0"
                : "=r"(flags)
                : "r"(a << shift), "r"(b << shift)
                : "cc");
        uint64_t low;
        __asm__("cmpb %b2, %b1; pushfq; popq %0" : "=r"(low) : "q"(a), "q"(b) : "cc");
        m->rflags = (m->rflags & ~(uint64_t)FLAGS) | (flags & 0x8c1) | (low & 0x14);
}

/* One element. False: it faults. */
static bool model_element(struct machine *m, const struct string *s)
{
        uint64_t delta = m->rflags & DF ? -(uint64_t)s->size : s->size;
        bool loads = s->kind == MOVS || s->kind == CMPS,
             writes = s->kind == MOVS || s->kind == STOS;
        if ((loads && !reachable(m, m->rsi, s->size, false)) ||
            !reachable(m, m->rdi, s->size, writes))
                return false;
        uint64_t mask = UINT64_MAX >> (64 - 8 * s->size);
        uint64_t value = loads ? get(m, m->rsi, s->size) : m->rax & mask;
        if (writes)
                put(m, m->rdi, value, s->size);
        else
                compare(m, value, get(m, m->rdi, s->size), s->size);
        m->rdi += delta;
        if (loads)
                m->rsi += delta;
        return true;
}

static void model_run(struct machine *m, const struct string *s)
{
        if (!s->rep) {
                model_element(m, s);
                return;
        }
        while (m->rcx && model_element(m, s)) {
                m->rcx--;
                bool compares = s->kind == CMPS || s->kind == SCAS;
                if (compares && !(m->rflags & 0x40) == (s->rep == 0xf3))
                        break;
        }
}

/* ---- the guest ---- */

static unsigned emit(uint8_t *at, const struct string *s)
{
        unsigned n = 0;
        if (s->narrow)
                at[n++] = 0x67;
        if (s->rep)
                at[n++] = (uint8_t)s->rep;
        if (s->size == 2)
                at[n++] = 0x66;
        if (s->size == 8)
                at[n++] = 0x48;
        at[n++] = (uint8_t)(opcodes[s->kind] | (s->size > 1));
        at[n++] = 0x0f; /* ud2 */
        at[n++] = 0x0b;
        return n;
}

/* All strings there are, 16 bytes apart in the page of code. */
static unsigned make_strings(struct guest *g, struct string *strings)
{
        static const uint8_t reps[] = { 0xf3, 0xf2, 0 };
        unsigned n = 0;
        for (unsigned i = 0; i < KINDS * 4 * 3 * 2; i++) {
                strings[n] = (struct string){ .kind = i % KINDS,
                                              .size = 1u << i / KINDS % 4,
                                              .rep = reps[i / KINDS / 4 % 3],
                                              .narrow = i / KINDS / 4 / 3 };
                emit(g->ram + GUEST_FREE + n * 16ull, &strings[n]);
                n++;
        }
        return n;
}

static struct cpu_state *setup(struct guest *g)
{
        guest_create(g);
        guest_long_mode(g, false);
        guest_map(g, CODE_AT, GUEST_FREE, GUEST_PTE_W);
        for (unsigned i = 0; i < PAGES; i++)
                if (window[i].page >= 0)
                        guest_map(g, WINDOW + i * PAGE, PHYSICAL + (uint64_t)window[i].page * PAGE,
                                  window[i].writable ? GUEST_PTE_W : 0);
        return cpu_state(g->cpu);
}

/* Runs what is at `rip` on *m. The TLB stays as earlier runs left it. */
static struct guest_end run_at(struct guest *g, uint64_t rip, struct machine *m)
{
        struct cpu_state *s = cpu_state(g->cpu);
        memcpy(g->ram + PHYSICAL, m->memory, BYTES);
        s->gpr[CPU_RAX] = m->rax;
        s->gpr[CPU_RCX] = m->rcx;
        s->gpr[CPU_RSI] = m->rsi;
        s->gpr[CPU_RDI] = m->rdi;
        s->gpr[CPU_RSP] = GUEST_STACK0 - 0x800;
        s->rflags = m->rflags;
        s->rip = rip;
        s->activity = CPU_RUNNING;
        struct guest_end end = guest_run(g, 1000);
        m->rcx = s->gpr[CPU_RCX];
        m->rsi = s->gpr[CPU_RSI];
        m->rdi = s->gpr[CPU_RDI];
        m->rflags = end.rflags & ~0x10000ull; /* RF of the fault */
        m->fault = end.vector == 14 ? s->cr2 : 0;
        memcpy(m->memory, g->ram + PHYSICAL, BYTES);
        return end;
}

static uint64_t below(uint64_t limit)
{
        return (uint64_t)random() % limit;
}

static void random_machine(struct machine *m, const struct string *s)
{
        /* Long equal stretches, a few that differ. */
        memset(m->memory, 0x55, BYTES);
        for (uint64_t i = below(8); i > 0; i--)
                m->memory[below(BYTES)] = (uint8_t)random();
        if (below(2))
                for (unsigned i = 0; i < BYTES; i++)
                        m->memory[i] = (uint8_t)random();
        m->rax = below(2) ? 0x5555555555555555 : (uint64_t)random() << 32 | (uint64_t)random();
        m->rflags = 0x202 | (below(2) ? DF : 0) | (below(2) ? FLAGS : 0);
        m->rcx = below(4) ? below(3 * PAGE) / s->size : below(20);
        m->rsi = WINDOW + below(PAGES * PAGE);
        m->rdi = WINDOW + below(PAGES * PAGE);
        if (below(2)) /* near each other */
                m->rdi = m->rsi + below(64) - 32;
        if (below(3) == 0) { /* aligned */
                m->rsi &= ~7ull;
                m->rdi &= ~7ull;
        }
        if (below(8) == 0) /* to the end of a page, and to next to it */
                m->rcx = (PAGE - m->rdi % PAGE) / s->size + below(3) - 1;
        if (s->rep && !s->narrow && below(16) == 0) /* more than there is, by sums that wrap, too */
                m->rcx = (below(2) * (UINT64_MAX / s->size + 1)) - below(2 * PAGE);
        m->fault = 0;
}

static void random_strings_agree_with_the_model(void **state)
{
        (void)state;
        struct guest g;
        setup(&g);
        static struct string strings[KINDS * 4 * 3 * 2];
        static struct machine start, ours, theirs;
        unsigned length = make_strings(&g, strings);
        srandom(1);
        for (unsigned n = 0; n < 20000; n++) {
                unsigned which = (unsigned)below(length);
                const struct string *s = &strings[which];
                random_machine(&start, s);
                ours = theirs = start;
                model_run(&theirs, s);
                if (below(8) == 0)
                        cpu_state_changed(g.cpu); /* with an empty TLB */
                struct guest_end end = run_at(&g, CODE_AT + which * 16, &ours);
                if (memcmp(&ours, &theirs, sizeof(ours)) == 0 &&
                    end.vector == (theirs.fault ? 14 : 6))
                        continue;
                fail_msg("case %u: opcode %x rep %x size %u narrow %d, rcx %llx rsi %llx rdi %llx "
                         "rflags %llx: ends by %d with rcx %llx, %llx expected, fault at %llx, "
                         "%llx, "
                         "rflags %llx, %llx",
                         n, opcodes[s->kind], s->rep, s->size, s->narrow,
                         (unsigned long long)start.rcx, (unsigned long long)start.rsi,
                         (unsigned long long)start.rdi, (unsigned long long)start.rflags,
                         end.vector, (unsigned long long)ours.rcx, (unsigned long long)theirs.rcx,
                         (unsigned long long)ours.fault, (unsigned long long)theirs.fault,
                         (unsigned long long)ours.rflags, (unsigned long long)theirs.rflags);
        }
        guest_destroy(&g);
}

/* ---- special destinations ---- */

static uint64_t device_bytes[64];
static unsigned device_writes;

static void on_mmio_write(void *arg, uint64_t gpa, unsigned size, uint64_t value)
{
        (void)arg;
        (void)size;
        assert_int_equal(gpa, 0xfee00ff0 + device_writes * 8);
        if (device_writes < 64)
                device_bytes[device_writes++] = value;
}

/* rep movsq from memory into a device, and over its end into a page that is absent. */
static void a_device_sees_every_element(void **state)
{
        (void)state;
        struct guest g;
        setup(&g);
        g.bus.mmio_write = on_mmio_write;
        device_writes = 0;
        guest_map(&g, DEVICE, 0xfee00000, GUEST_PTE_W);
        memcpy(g.ram + GUEST_FREE, "\xf3\x48\xa5\x0f\x0b", 5);
        static struct machine m;
        for (unsigned i = 0; i < BYTES; i++)
                m.memory[i] = (uint8_t)i;
        m.rflags = 0x202;
        m.rcx = 5;
        m.rsi = WINDOW;
        m.rdi = DEVICE + 0xff0;
        assert_int_equal(run_at(&g, CODE_AT, &m).vector, 14);
        assert_int_equal(device_writes, 2);
        assert_memory_equal(device_bytes, m.memory, 16);
        assert_int_equal(m.fault, DEVICE + 0x1000);
        assert_int_equal(m.rcx, 3);
        guest_destroy(&g);
}

/* Calls a function, copies another over it by rep movsb, calls again; in a loop, so that it
 * is translated. */
static const uint8_t overwriting[] = {
        0x49, 0x89, 0xd2,       /* mov r10, rdx: the function */
        0x41, 0xff, 0xd2,       /* 3: call r10 */
        0x49, 0x01, 0xc0,       /* add r8, rax */
        0x48, 0x89, 0xde,       /* mov rsi, rbx */
        0x4c, 0x89, 0xd7,       /* mov rdi, r10 */
        0xb9, 6,    0,    0, 0, /* mov ecx, 6 */
        0xf3, 0xa4,             /* rep movsb */
        0xfe, 0x43, 0x01,       /* inc byte [rbx+1]: the next function's result */
        0x41, 0xff, 0xc9,       /* dec r9d */
        0x75, 0xe5,             /* jnz 3 */
        0x0f, 0x0b,             /* ud2 */
};
static const uint8_t function[] = { 0xb8, 1, 0, 0, 0, 0xc3 }; /* mov eax, 1; ret */

/* The sum of what the function gave: 1, and then what each copy made of it. */
static uint64_t sum_of_calls(uint64_t function_at, unsigned calls)
{
        struct guest g;
        struct cpu_state *s = setup(&g);
        guest_map(&g, CODE_AT + 0x1000, GUEST_FREE + 0x1000, GUEST_PTE_W);
        memcpy(g.ram + GUEST_FREE, overwriting, sizeof(overwriting));
        memcpy(g.ram + function_at - CODE_AT + GUEST_FREE, function, sizeof(function));
        static struct machine m;
        memset(&m, 0, sizeof(m));
        memcpy(m.memory, function, sizeof(function));
        s->gpr[CPU_RDX] = function_at;
        s->gpr[CPU_RBX] = WINDOW;
        s->gpr[8] = 0;
        s->gpr[9] = calls;
        m.rflags = 0x202;
        assert_int_equal(run_at(&g, CODE_AT, &m).vector, 6);
        uint64_t sum = s->gpr[8];
        guest_destroy(&g);
        return sum;
}

static void code_that_a_string_writes_is_new_at_once(void **state)
{
        (void)state;
        const unsigned calls = 60;
        uint64_t expected = 1;
        for (unsigned n = 1; n < calls; n++)
                expected += n;
        assert_int_equal(sum_of_calls(CODE_AT + 0x800, calls), expected);  /* in its own page */
        assert_int_equal(sum_of_calls(CODE_AT + 0x1800, calls), expected); /* in the next */
}

static int acknowledge(void *arg)
{
        (void)arg;
        return 0x40;
}

/* With an interrupt waiting a long copy is left in the middle, with what is left told. */
static void a_long_string_lets_interrupts_in(void **state)
{
        (void)state;
        struct guest g;
        setup(&g);
        g.bus.interrupt_acknowledge = acknowledge;
        for (unsigned i = 0; i < 0x400; i++)
                guest_map(&g, 0x10000000 + i * PAGE, 0x1000000 + i * PAGE, GUEST_PTE_W);
        memcpy(g.ram + GUEST_FREE, "\xfb\xf3\xaa\x0f\x0b", 5); /* sti; rep stosb; ud2 */
        static struct machine m;
        m.rflags = 2;
        m.rax = 1;
        m.rcx = 0x400 * PAGE;
        m.rdi = 0x10000000;
        cpu_set_irq(g.cpu, true);
        struct guest_end end = run_at(&g, CODE_AT, &m);
        assert_int_equal(end.vector, 0x40);
        assert_int_equal(end.rip, CODE_AT + 1);
        assert_in_range(m.rcx, 0x400 * PAGE - (256u << 10), 0x400 * PAGE - 1);
        assert_int_equal(m.rcx + m.rdi, 0x10000000 + 0x400 * PAGE);
        guest_destroy(&g);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(random_strings_agree_with_the_model),
                cmocka_unit_test(a_device_sees_every_element),
                cmocka_unit_test(code_that_a_string_writes_is_new_at_once),
                cmocka_unit_test(a_long_string_lets_interrupts_in),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
