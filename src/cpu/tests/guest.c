#include "cpu/tests/guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/profile.h"

static void put64(struct guest *g, uint64_t gpa, uint64_t value)
{
        memcpy(g->ram + gpa, &value, 8);
}

static uint64_t get64(const struct guest *g, uint64_t gpa)
{
        uint64_t value;
        memcpy(&value, g->ram + gpa, 8);
        return value;
}

/* The whole suite once more through the translator, where it is asked to. */
static bool translated(void)
{
        return getenv("GUEST_TRANSLATED") != NULL;
}

/* Or with blocks that count themselves. */
static void profile(struct guest *g)
{
        struct err err;
        if (getenv("GUEST_PROFILED") && cpu_profile_begin(g->cpu, -1, &err) < 0)
                abort();
}

void guest_create(struct guest *g)
{
        struct err err;
        memset(g, 0, sizeof(*g));
        g->ram = mmap(NULL, GUEST_RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                      -1, 0);
        g->memory.slots[0] = (struct cpu_slot){ 0, GUEST_RAM_BYTES, g->ram, false };
        g->memory.length = 1;
        if (g->ram == MAP_FAILED || cpu_memory_init(&g->memory, &err) < 0)
                abort();
        g->bus.memory = &g->memory;
        if (cpu_create(&g->bus, 0, &g->cpu, &err) < 0) {
                fprintf(stderr, "%s\n", err_text(&err));
                abort();
        }
        if (translated())
                cpu_set_translation(g->cpu, CPU_TRANSLATE_ALWAYS);
        profile(g);
}

void guest_destroy(struct guest *g)
{
        cpu_profile_destroy(cpu_profile_end(g->cpu));
        cpu_destroy(g->cpu);
        cpu_memory_finish(&g->memory);
        munmap(g->ram, GUEST_RAM_BYTES);
}

void guest_map(struct guest *g, uint64_t linear, uint64_t gpa, uint64_t flags)
{
        uint64_t table = g->root;
        for (unsigned shift = 39; shift > 12; shift -= 9) {
                uint64_t at = table + (linear >> shift & 511) * 8;
                if (!(get64(g, at) & 1)) {
                        put64(g, at, g->next_table | 7);
                        g->next_table += 4096;
                }
                table = get64(g, at) & 0xffffffffff000;
        }
        put64(g, table + (linear >> 12 & 511) * 8, gpa | flags | 1);
}

static void write_tables(struct guest *g)
{
        static const uint64_t gdt[] = {
                0,
                0x00af9b000000ffff, /* 08: 64-bit code */
                0x00cf93000000ffff, /* 10: data */
                0x00cf9b000000ffff, /* 18: 32-bit code */
                0x00cffb000000ffff, /* 20: 32-bit user code */
                0x00cff3000000ffff, /* 28: user data */
                0x00affb000000ffff, /* 30: 64-bit user code */
                0x00009b000000ffff, /* 38: 16-bit code */
                0x000093000000ffff, /* 40: 16-bit data */
        };
        memcpy(g->ram + GUEST_GDT, gdt, sizeof(gdt));
        put64(g, GUEST_LDT + 16, gdt[5]);
        put64(g, GUEST_GDT + GUEST_TSS_SEL, 0x0000890000000067 | (uint64_t)GUEST_TSS << 16);
        put64(g, GUEST_GDT + GUEST_TSS_SEL + 8, GUEST_HIGH >> 32);
        for (unsigned v = 0; v < 256; v++) {
                uint64_t target = GUEST_HANDLERS + v * 16;
                put64(g, GUEST_IDT + v * 16,
                      (target & 0xffff) | (uint64_t)GUEST_CODE64 << 16 |
                              (v == 3 || v == 4 ? 0xeeull : 0x8eull) << 40 |
                              (target >> 16 & 0xffff) << 48);
                put64(g, GUEST_IDT + v * 16 + 8, GUEST_HIGH >> 32);
                g->ram[target] = 0xf4;
        }
        memset(g->ram + GUEST_TSS, 0, 104);
        put64(g, GUEST_TSS + 4, GUEST_HIGH + GUEST_STACK0);
        uint16_t iomap = 104;
        memcpy(g->ram + GUEST_TSS + 102, &iomap, 2);
}

static struct cpu_segment segment(uint16_t selector, uint32_t attributes)
{
        return (struct cpu_segment){ .limit = UINT32_MAX,
                                     .attributes = attributes,
                                     .selector = selector };
}

void guest_long_mode(struct guest *g, bool user)
{
        g->root = GUEST_TABLES;
        g->next_table = GUEST_TABLES + 4096;
        memset(g->ram + GUEST_TABLES, 0, GUEST_GDT - GUEST_TABLES);
        write_tables(g);
        for (uint64_t page = 0; page < 0x30000; page += 4096)
                guest_map(g, page, page, GUEST_PTE_W);
        for (uint64_t page = 0x20000; page < 0x30000; page += 4096)
                guest_map(g, GUEST_HIGH + page, page, GUEST_PTE_W);
        cpu_reset(g->cpu, false);
        struct cpu_state *s = cpu_state(g->cpu);
        s->cr0 = 0x80050033;
        s->cr3 = g->root;
        s->cr4 = 0x406a0; /* PAE PGE OSFXSR OSXMMEXCPT OSXSAVE MCE */
        s->efer = 0xd01;
        s->xcr0 = 7;
        s->rflags = 0x202;
        s->x87.control = 0x37f;
        s->gdtr = (struct cpu_table){ .base = GUEST_HIGH + GUEST_GDT, .limit = 0x57 };
        s->idtr = (struct cpu_table){ .base = GUEST_HIGH + GUEST_IDT, .limit = 0xfff };
        s->tr = (struct cpu_segment){ .base = GUEST_HIGH + GUEST_TSS,
                                      .limit = 103,
                                      .attributes = 0x8b,
                                      .selector = GUEST_TSS_SEL };
        s->ldtr = (struct cpu_segment){
                .base = GUEST_HIGH + GUEST_LDT, .limit = 23, .attributes = 0x82, .selector = 0x50
        };
        unsigned dpl = user ? 3 : 0;
        for (unsigned i = 0; i < CPU_SEGS; i++)
                s->seg[i] = segment(user ? GUEST_USERDATA : GUEST_DATA, 0xc093 | dpl << 5);
        s->seg[CPU_CS] = segment(user ? GUEST_USER64 : GUEST_CODE64, 0xa09b | dpl << 5);
        cpu_state_changed(g->cpu);
}

struct guest_end guest_run(struct guest *g, uint64_t budget)
{
        struct guest_end end = { .vector = -1 };
        end.exit = cpu_run(g->cpu, translated() ? CPU_NO_BUDGET : budget);
        const struct cpu_state *s = cpu_state(g->cpu);
        end.rip = s->rip;
        end.rflags = s->rflags;
        end.rsp = s->gpr[CPU_RSP];
        uint64_t handlers = GUEST_HIGH + GUEST_HANDLERS;
        if (s->rip < handlers || s->rip >= handlers + 0x1000 || end.exit != CPU_EXIT_HALT)
                return end;
        end.vector = (int)((s->rip - handlers) / 16);
        uint64_t at = s->gpr[CPU_RSP] & 0xffffffff;
        if (at + 64 > GUEST_RAM_BYTES)
                return end;
        bool error = end.vector == 8 || (end.vector >= 10 && end.vector <= 14) || end.vector == 17;
        if (error) {
                end.error = get64(g, at);
                at += 8;
        }
        end.rip = get64(g, at);
        end.cs = get64(g, at + 8);
        end.rflags = get64(g, at + 16);
        end.rsp = get64(g, at + 24);
        return end;
}

struct cpu_state *guest_code(struct guest *g, bool user, const uint8_t *code, const uint8_t *end)
{
        guest_long_mode(g, user);
        uint64_t u = user ? GUEST_PTE_U : 0;
        guest_map(g, USER_CODE, GUEST_FREE, u | GUEST_PTE_W);
        guest_map(g, USER_CODE + 4096, GUEST_FREE + 0x1000, u | GUEST_PTE_W);
        guest_map(g, USER_DATA, GUEST_FREE + 0x2000, u | GUEST_PTE_W);
        guest_map(g, USER_DATA + 4096, GUEST_FREE + 0x3000, u | GUEST_PTE_W);
        memcpy(g->ram + GUEST_FREE, code, (size_t)(end - code));
        struct cpu_state *s = cpu_state(g->cpu);
        s->rip = USER_CODE;
        s->gpr[CPU_RSP] = user ? USER_DATA + 0x1000 : GUEST_STACK0 - 0x800;
        s->gpr[CPU_RBX] = USER_DATA;
        return s;
}
