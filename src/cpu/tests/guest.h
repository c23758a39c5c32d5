/* A guest for tests: a vCPU in 64-bit user or supervisor mode with page tables,
 * descriptor tables, a TSS and handlers that halt, so that a test sees which
 * exception ended its code. */
#pragma once

#include "cpu/cpu.h"

#define GUEST_RAM_BYTES (32u << 20)

/* Guest physical layout of the fixed parts. */
#define GUEST_TABLES   0x1000u /* page tables grow from here */
#define GUEST_GDT      0x20000u
#define GUEST_LDT      0x20800u /* entry 2, selector 0x17: user data */
#define GUEST_IDT      0x21000u
#define GUEST_TSS      0x22000u
#define GUEST_HANDLERS 0x23000u /* 16 bytes per vector: HLT */
#define GUEST_STACK0   0x28000u /* top of the ring 0 stack */
#define GUEST_FREE     0x100000u

/* The system structures are mapped at the same addresses and again up here, where
 * the processor looks for them: a test may map what it likes below. */
#define GUEST_HIGH 0xffff800000000000ull

/* User selectors as Linux has them: suites from elsewhere count on it. */
#define GUEST_CODE64   0x08
#define GUEST_DATA     0x10
#define GUEST_CODE32   0x18
#define GUEST_USER32   0x23
#define GUEST_USERDATA 0x2b
#define GUEST_USER64   0x33
#define GUEST_CODE16   0x38
#define GUEST_DATA16   0x40
#define GUEST_TSS_SEL  0x48

#define GUEST_PTE_W  2u
#define GUEST_PTE_U  4u
#define GUEST_PTE_NX (1ull << 63)

struct guest {
        struct cpu_memory memory;
        struct cpu_bus bus;
        struct cpu *cpu;
        uint8_t *ram;
        uint64_t next_table; /* bump allocator of page table pages */
        uint64_t root;
};

/* What ended the run. */
struct guest_end {
        enum cpu_exit exit;
        int vector; /* -1: not in a handler */
        uint64_t error, rip, rflags, rsp, cs;
};

void guest_create(struct guest *guest);
void guest_destroy(struct guest *guest);
/* Maps one page; flags are those of the entry beside present. */
void guest_map(struct guest *guest, uint64_t linear, uint64_t gpa, uint64_t flags);
/* Sets up long mode with everything above; rip and rsp are the caller's. */
void guest_long_mode(struct guest *guest, bool user);
/* Runs until a handler halts or the budget ends. */
struct guest_end guest_run(struct guest *guest, uint64_t budget);

/* Code of a test, assembled: `name` up to `name`_end, for 16, 32 or 64 bits. */
#define GUEST_CODE(name, bits, text)                                                               \
        __asm__(".pushsection .rodata\n.intel_syntax noprefix\n.code" #bits "\n" #name ":\n" text  \
                "\n" #name "_end:\n.code64\n.att_syntax prefix\n.popsection\n");                   \
        extern const uint8_t name[], name##_end[]

#define USER_CODE 0x400000u
#define USER_DATA 0x600000u

/* Long mode with a page of code and two of data, which RBX points to; user or supervisor.
 * `g` was created. */
struct cpu_state *guest_code(struct guest *g, bool user, const uint8_t *code, const uint8_t *end);
