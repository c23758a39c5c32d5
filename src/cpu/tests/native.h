/* Random instruction sequences run on the host's own processor, in a sandboxed
 * child process, with the state before and after. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Fixed addresses below 2 GiB, the same natively and in the guest. */
#define NATIVE_CODE       0x10000000u /* 2 pages, read and execute */
#define NATIVE_CODE_BYTES 0x2000u
#define NATIVE_DATA       0x10010000u /* 4 pages, read and write; a hole on each side */
#define NATIVE_DATA_BYTES 0x4000u
#define NATIVE_RODATA     0x10018000u /* 1 page, read only */
#define NATIVE_STATE      0x30000000u /* where the stubs keep state; not for guests */

/* How the code ends: jmp [NATIVE_STATE + 2448]. Natively that leads to the exit
 * stub; in the guest, where nothing is mapped there, to a page fault. */
#define NATIVE_LEAVE      "\xff\x24\x25\x90\x09\x00\x30"
#define NATIVE_LEAVE_SIZE 7u

struct native_state {
        uint64_t gpr[16];
        uint64_t rip, rflags;
        uint8_t fx[512];     /* FXSAVE64 image */
        uint8_t ymm[16][32]; /* whole registers */
} __attribute__((aligned(64)));

struct native_result {
        struct native_state state;
        uint64_t data_hash;
        int vector; /* -1: reached the end */
        uint64_t error, cr2;
        bool done;
};

struct native_case {
        struct native_state state;
        uint8_t code[256];
        unsigned code_size;
        uint64_t data_seed;
        uint32_t undefined; /* flags without a defined value at the end */
        bool bits32;        /* compatibility mode */
};

/* Makes case `number` of a seed; the same in every process. */
void native_make(uint64_t seed, uint64_t number, bool bits32, struct native_case *ret);
/* Fills the data area as the case wants it. */
void native_fill(uint64_t data_seed, uint8_t *data);
uint64_t native_hash(const uint8_t *data);

/* Runs cases [first, first + count) in a child and stores their results. False
 * when the child died or could not be sandboxed; results then tell how far. */
bool native_run(uint64_t seed, uint64_t first, unsigned count, bool bits32,
                struct native_result *results);
