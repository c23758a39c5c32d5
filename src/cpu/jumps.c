/* Where indirect jumps of translated code go: a table per context. See translate.h. */
#include "cpu/translate.h"

static unsigned place_of(uint64_t linear)
{
        return linear >> 2 & (JUMP_PLACES - 1);
}

/* An address that belongs to another place: never found. */
static void forget(struct jump_table *t, unsigned place)
{
        t->negated[place] = -((place + 1ull) % JUMP_PLACES << 2);
}

void cpu_jumps_init(struct cpu *cpu)
{
        for (unsigned c = 0; c < CTX_CHECKED; c++)
                for (unsigned i = 0; i < JUMP_PLACES; i++)
                        forget(&cpu->jump_tables[c], i);
}

static void flush(struct jump_table *t)
{
        for (unsigned word = 0; word < JUMP_PLACES / 64; word++) {
                for (uint64_t bits = t->used[word]; bits; bits &= bits - 1)
                        forget(t, word * 64 + (unsigned)__builtin_ctzll(bits));
                t->used[word] = 0;
        }
}

void cpu_jumps_flush(struct cpu *cpu, bool kernel_too)
{
        flush(&cpu->jump_tables[CTX_USER]);
        if (!kernel_too)
                return;
        flush(&cpu->jump_tables[CTX_KERNEL]);
        flush(&cpu->jump_tables[CTX_KERNEL_AC]);
}

void cpu_jump_remember(struct cpu *cpu, const struct block *b)
{
        unsigned context = b->key & 3;
        uint64_t rip = cpu->s.rip;
        const struct tlb *tlb = &cpu->tlbs[cpu->cpl == 3 ? CTX_USER : CTX_KERNEL];
        unsigned i = tlb_index(rip);
        if (tlb->fetch[i] != tlb_tag(rip))
                return;
        /* Kernel entries outlive switches of address spaces and flushes of single
         * pages of the lower half: only global pages of the upper one. */
        if (context != CTX_USER && !(tlb->gpa[i] & 1 && rip >> 63))
                return;
        struct jump_table *table = &cpu->jump_tables[context];
        unsigned place = place_of(rip);
        table->used[place / 64] |= 1ull << place % 64;
        table->negated[place] = -rip;
        table->code[place] = cpu->translator.executable + b->code;
        table->page[place] = rip & ~PAGE_MASK;
}

const uint8_t *cpu_jump_find(struct cpu *cpu)
{
        if (cpu->mode != DECODE_64 || cpu->context == CTX_CHECKED)
                return NULL;
        const struct jump_table *t = &cpu->jump_tables[cpu->context];
        unsigned place = place_of(cpu->s.rip);
        if (t->negated[place] != -cpu->s.rip)
                return NULL;
        cpu->s.interrupt_shadow = false;
        cpu->page_linear = t->page[place];
        return t->code[place];
}
