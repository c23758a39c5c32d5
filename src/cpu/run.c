/* The vCPU's life: creation, reset, inputs, the block cache and the run loop. */
#include "cpu/profile.h"
#include "cpu/translate.h"

#include <string.h>
#include <sys/mman.h>

/* ---- derived state ---- */

/* Whether the guest or a debugger outside watches data. */
static bool watches(const struct cpu *cpu)
{
        return cpu_watches(cpu->s.dr7) || cpu_watches(cpu->debug.dr7);
}

static void choose_context(struct cpu *cpu)
{
        const struct cpu_state *s = &cpu->s;
        bool ac = s->rflags & RF_AC;
        if (watches(cpu) || (cpu->cpl == 3 && ac && s->cr0 & CR0_AM))
                cpu->context = CTX_CHECKED;
        else if (cpu->cpl == 3)
                cpu->context = CTX_USER;
        else
                cpu->context = ac && s->cr4 & CR4_SMAP ? CTX_KERNEL_AC : CTX_KERNEL;
        cpu->tlb = &cpu->tlbs[cpu->context];
}

void cpu_ac_changed(struct cpu *cpu)
{
        choose_context(cpu);
        cpu->translate_key = (uint8_t)((cpu->translate_key & ~3) | cpu->context);
}

void cpu_mode_changed(struct cpu *cpu)
{
        struct cpu_state *s = &cpu->s;
        cpu->long_mode = s->efer & EFER_LMA;
        cpu->code64 = cpu->long_mode && s->seg[CPU_CS].attributes & ATTR_L;
        cpu->legacy = !cpu->code64;
        cpu->cpl = s->cr0 & CR0_PE ? ATTR_DPL(s->seg[CPU_SS].attributes) : 0;
        cpu->mode = cpu->code64                           ? DECODE_64
                    : s->seg[CPU_CS].attributes & ATTR_DB ? DECODE_32
                                                          : DECODE_16;
        for (unsigned i = 0; i < CPU_SEGS; i++)
                cpu->seg_base[i] = cpu->code64 && i < CPU_FS ? 0 : s->seg[i].base;
        choose_context(cpu);
        cpu->slow = watches(cpu) || s->rflags & (FLAG_TF | RF_RF) || s->dr7 & 0xff;
        cpu->breaks = cpu->debug.dr7 & 0xff;
        cpu->jump_key = cpu->epoch << 8 | (cpu->cpl == 3) << 4 | cpu->mode;

        uint8_t old_key = cpu->translate_key;
        uint8_t ts = s->cr0 & CR0_TS ? VEC_NM : 0;
        bool no_sse = s->cr0 & CR0_EM || !(s->cr4 & CR4_OSFXSR);
        bool no_avx = !(s->cr4 & CR4_OSXSAVE) || (s->xcr0 & 6) != 6 || !(s->cr0 & CR0_PE);
        cpu->blocked[UNIT_X87] = s->cr0 & CR0_EM ? VEC_NM : ts;
        cpu->blocked[UNIT_MMX] = s->cr0 & CR0_EM ? VEC_UD : ts;
        cpu->blocked[UNIT_SSE] = no_sse ? VEC_UD : ts;
        cpu->blocked[UNIT_AVX] = no_avx ? VEC_UD : ts;
        bool x87 = !cpu->blocked[UNIT_X87] && !cpu->unmasked_x87;
        cpu->translate_key = (uint8_t)(cpu->context | !cpu->blocked[UNIT_SSE] << 2 |
                                       !cpu->blocked[UNIT_AVX] << 3 | cpu->unmasked_simd << 4 |
                                       x87 << 5 | (cpu->cpl == 1 || cpu->cpl == 2) << 6);
        if ((cpu->translate_key ^ old_key) & ~3)
                cpu_jumps_flush(cpu, true); /* tables are by context only */
}

void cpu_state_changed(struct cpu *cpu)
{
        cpu->s.rflags |= RF_FIXED;
        cpu_tlb_flush(cpu, true);
        cpu_set_mxcsr(cpu, cpu->s.x87.mxcsr);
        cpu_x87_control(cpu, cpu->s.x87.control);
        cpu->uppers = UPPERS_USED;
        cpu_mode_changed(cpu);
}

struct cpu_state *cpu_state(struct cpu *cpu)
{
        return &cpu->s;
}

void cpu_set_translation(struct cpu *cpu, enum cpu_translation translation)
{
        cpu->translation = (uint8_t)translation;
}

const struct cpu_counters *cpu_counters(const struct cpu *cpu)
{
        return &cpu->counters;
}

void cpu_unimplemented(struct cpu *cpu)
{
        cpu->counters.unimplemented++;
        if (cpu->step)
                cpu->counters.unimplemented_opcode = (uint64_t)cpu->step->i.map << 8 |
                                                     cpu->step->i.code;
        cpu_gp(cpu);
}

/* ---- creation and reset ---- */

int cpu_create(const struct cpu_bus *bus, unsigned index, struct cpu **ret, struct err *err)
{
        decode_init();
        struct cpu *cpu = mmap(NULL, sizeof(*cpu), PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (cpu == MAP_FAILED)
                return err_set(err, errno, "memory for vCPU %u", index);
        cpu->bus = bus;
        cpu->memory = bus->memory;
        cpu->index = index;
        cpu->delivering = -1;
        cpu->int3_passed = UINT64_MAX;
        cpu->vec_parked = cpu->x87_parked = true;
        int r = cpu_pools_create(cpu, err);
        if (r == 0)
                r = cpu_thunks_create(cpu, err);
        if (r == 0)
                r = cpu_translator_create(cpu, err);
        if (r < 0) {
                cpu_destroy(cpu);
                return r;
        }
        cpu_cpuid_read_host(cpu);
        cpu_tlb_init(cpu);
        cpu_reset(cpu, index != 0);
        unsigned place = atomic_load(&cpu->memory->cpus_length);
        if (place == CPU_MEMORY_CPUS) {
                cpu_destroy(cpu);
                return err_plain(err, ENOSPC, "more than %d vCPUs on one memory", CPU_MEMORY_CPUS);
        }
        cpu->memory->cpus[place] = cpu;
        atomic_store(&cpu->memory->cpus_length, place + 1);
        *ret = cpu;
        return 0;
}

void cpu_destroy(struct cpu *cpu)
{
        if (!cpu)
                return;
        struct cpu_memory *m = cpu->memory;
        unsigned length = atomic_load(&m->cpus_length);
        for (unsigned i = 0; i < length; i++) {
                if (m->cpus[i] != cpu)
                        continue;
                m->cpus[i] = m->cpus[length - 1];
                atomic_store(&m->cpus_length, length - 1);
                break;
        }
        cpu_thunks_destroy(cpu);
        cpu_translator_destroy(cpu);
        cpu_pools_destroy(cpu);
        munmap(cpu, sizeof(*cpu));
}

static void reset_registers(struct cpu *cpu)
{
        struct cpu_state *s = &cpu->s;
        memset(s->gpr, 0, sizeof(s->gpr));
        uint32_t signature[4];
        cpu_cpuid(cpu, 1, 0, signature);
        s->gpr[CPU_RDX] = signature[0];
        s->rip = 0xfff0;
        s->rflags = RF_FIXED;
        for (unsigned i = 0; i < CPU_SEGS; i++)
                s->seg[i] = (struct cpu_segment){ .limit = 0xffff, .attributes = 0x93 };
        s->seg[CPU_CS].base = 0xffff0000;
        s->seg[CPU_CS].selector = 0xf000;
        s->seg[CPU_CS].attributes = 0x9b;
        s->ldtr = (struct cpu_segment){ .limit = 0xffff, .attributes = 0x82 };
        s->tr = (struct cpu_segment){ .limit = 0xffff, .attributes = 0x8b };
        s->gdtr = s->idtr = (struct cpu_table){ .limit = 0xffff };
        s->cr0 = CR0_ET | CR0_NW | CR0_CD;
        s->cr2 = s->cr3 = s->cr4 = s->cr8 = s->efer = 0;
        memset(s->dr, 0, sizeof(s->dr));
        s->dr6 = 0xffff0ff0;
        s->dr7 = 0x400;
        s->interrupt_shadow = s->nmi_blocked = s->nmi_pending = 0;
}

void cpu_reset(struct cpu *cpu, bool application_processor)
{
        struct cpu_state *s = &cpu->s;
        memset(s, 0, sizeof(*s));
        reset_registers(cpu);
        s->x87.control = 0x40;
        s->x87.mxcsr = 0x1f80;
        s->x87.mxcsr_mask = 0xffff;
        s->xcr0 = 1;
        s->pat = 0x0007040600070406;
        s->misc_enable = 1;
        s->apic_base = 0xfee00800 | (application_processor ? 0 : 0x100);
        s->tsc_offset = -__builtin_ia32_rdtsc();
        s->activity = application_processor ? CPU_WAIT_FOR_SIPI : CPU_RUNNING;
        cpu_state_changed(cpu);
        cpu_code_flush(cpu);
}

/* ---- inputs ---- */

void cpu_pend(struct cpu *cpu, uint32_t bits)
{
        atomic_fetch_or(&cpu->pending, bits);
        cpu_jumps_stop(cpu);
}

void cpu_set_irq(struct cpu *cpu, bool raised)
{
        if (raised)
                cpu_pend(cpu, PEND_IRQ);
        else
                atomic_fetch_and(&cpu->pending, ~PEND_IRQ);
}

void cpu_raise_nmi(struct cpu *cpu)
{
        uint32_t old = atomic_load(&cpu->pending), new;
        do {
                new = old | (old & PEND_NMI ? PEND_NMI_AGAIN : PEND_NMI);
        } while (!atomic_compare_exchange_weak(&cpu->pending, &old, new));
        cpu_jumps_stop(cpu);
}

void cpu_raise_init(struct cpu *cpu)
{
        cpu_pend(cpu, PEND_INIT);
}

void cpu_raise_sipi(struct cpu *cpu, uint8_t vector)
{
        uint32_t old = atomic_load(&cpu->pending), new;
        do {
                new = (old & 0x00ffffff) | PEND_SIPI | (uint32_t)vector << PEND_SIPI_VECTOR;
        } while (!atomic_compare_exchange_weak(&cpu->pending, &old, new));
        cpu_jumps_stop(cpu);
}

void cpu_kick(struct cpu *cpu)
{
        cpu_pend(cpu, PEND_KICK);
}

bool cpu_has_work(const struct cpu *cpu)
{
        uint32_t pending = atomic_load(&((struct cpu *)(uintptr_t)cpu)->pending);
        return pending & (PEND_IRQ | PEND_NMI | PEND_INIT | PEND_SIPI | PEND_KICK);
}

static void take_init(struct cpu *cpu)
{
        uint64_t cache = cpu->s.cr0 & (CR0_CD | CR0_NW);
        reset_registers(cpu);
        cpu->s.cr0 = CR0_ET | cache;
        cpu->s.activity = cpu->s.apic_base & 0x100 ? CPU_RUNNING : CPU_WAIT_FOR_SIPI;
        cpu_state_changed(cpu);
}

static void take_sipi(struct cpu *cpu, uint8_t vector)
{
        if (cpu->s.activity != CPU_WAIT_FOR_SIPI)
                return;
        cpu_set_real_segment(cpu, CPU_CS, (uint16_t)(vector << 8));
        cpu->s.rip = 0;
        cpu->s.activity = CPU_RUNNING;
        cpu_mode_changed(cpu);
}

/* Delivers one interrupt where the processor may take it now. */
static void take_interrupt(struct cpu *cpu)
{
        if (cpu->s.interrupt_shadow || cpu->s.activity >= CPU_WAIT_FOR_SIPI)
                return;
        if (cpu->s.nmi_pending && !cpu->s.nmi_blocked) {
                cpu->s.nmi_pending--;
                cpu->s.nmi_blocked = true;
                cpu->s.activity = CPU_RUNNING;
                cpu->counters.interrupts++;
                cpu->delivering = VEC_NMI;
                cpu_interrupt(cpu, VEC_NMI, INTERRUPT_EXTERNAL, NULL);
                cpu->delivering = -1;
                return;
        }
        if (!(atomic_load(&cpu->pending) & PEND_IRQ) || !(cpu->s.rflags & FLAG_IF) ||
            !cpu->bus->interrupt_acknowledge)
                return;
        cpu_fpu_leave(cpu);
        int vector = cpu->bus->interrupt_acknowledge(cpu->bus->arg);
        cpu_fpu_enter(cpu);
        if (vector < 0)
                return;
        cpu->s.activity = CPU_RUNNING;
        cpu->counters.interrupts++;
        cpu->delivering = 256 + vector; /* benign, sets EXT */
        cpu_interrupt(cpu, vector, INTERRUPT_EXTERNAL, NULL);
        cpu->delivering = -1;
}

/* One is latched beside the one in service; with none in service, two: the first is taken
 * at once. */
static void latch_nmi(struct cpu *cpu)
{
        uint32_t was = atomic_fetch_and(&cpu->pending, ~(PEND_NMI | PEND_NMI_AGAIN));
        unsigned most = cpu->s.nmi_blocked ? 1 : 2;
        unsigned count = cpu->s.nmi_pending + (was & PEND_NMI_AGAIN ? 2u : 1u);
        cpu->s.nmi_pending = (uint8_t)(count < most ? count : most);
}

static void take_inputs(struct cpu *cpu)
{
        uint32_t pending = atomic_load(&cpu->pending);
        if (pending & PEND_CODE)
                cpu_code_catch_up(cpu);
        if (pending & PEND_NMI)
                latch_nmi(cpu);
        if (pending & PEND_INIT) {
                atomic_fetch_and(&cpu->pending, ~PEND_INIT);
                take_init(cpu);
        }
        if (pending & PEND_SIPI) {
                atomic_fetch_and(&cpu->pending, ~(PEND_SIPI | 0xffu << PEND_SIPI_VECTOR));
                take_sipi(cpu, (uint8_t)(pending >> PEND_SIPI_VECTOR));
        }
        take_interrupt(cpu);
}

/* ---- block cache ---- */

void cpu_code_flush(struct cpu *cpu)
{
        cpu_blocks_flush(cpu);
        cpu_pools_flush(cpu);
        cpu_translator_flush(cpu);
        cpu_spaces_forget(cpu);
        cpu_new_epoch(cpu);
        cpu_mode_changed(cpu);
}

void cpu_flush(struct cpu *cpu)
{
        cpu_code_flush(cpu);
        cpu_thunks_flush(cpu);
        cpu_tlb_flush(cpu, true);
}

static void undefined(struct cpu *cpu, const struct step *step)
{
        cpu->counters.unimplemented++;
        cpu->counters.unimplemented_opcode = step->i.imm;
        cpu_raise(cpu, VEC_UD);
}

static void too_long(struct cpu *cpu, const struct step *step)
{
        (void)step;
        cpu_gp(cpu);
}

/* Decodes into *step; false when more bytes are needed. */
static bool step_decode(struct cpu *cpu, const uint8_t *code, size_t size, struct step *step)
{
        memset(step, 0, offsetof(struct step, i)); /* decode() fills the rest */
        /* The guest may change its code meanwhile: what is decoded is what is kept. */
        memcpy(step->bytes, code, size);
        const uint8_t *bytes = step->bytes;
        int r = decode_for(cpu->features, bytes, size, (enum decode_mode)cpu->mode, &step->i);
        if (r == DECODE_SHORT)
                return false;
        if (r <= 0) {
                uint64_t head = 0;
                memcpy(&head, bytes, size < 8 ? size : 8);
                memset(&step->i, 0, sizeof(step->i));
                step->i.class = CLASS_CONTROL;
                step->i.imm = head;
                step->run = r == DECODE_LONG ? too_long : undefined;
                return true;
        }
        if (!cpu_bind(cpu, step)) {
                cpu_code_flush(cpu);
                cpu_thunks_flush(cpu);
                if (!cpu_bind(cpu, step))
                        step->run = undefined;
        }
        return true;
}

static bool ends_block(const struct step *step)
{
        const struct insn *i = &step->i;
        return i->class == CLASS_CONTROL || (i->class == CLASS_PRIVILEGED && !cpu_stays(i->op)) ||
               i->op == OP_POP_SEG || i->op == OP_MOV_TO_SEG || i->op == OP_LOAD_FAR;
}

static uint64_t code_linear(struct cpu *cpu)
{
        if (!cpu->legacy)
                return cpu->s.rip;
        cpu->s.rip &= 0xffffffff;
        if (cpu->s.rip > cpu->s.seg[CPU_CS].limit)
                cpu_gp(cpu);
        return (cpu->s.seg[CPU_CS].base + cpu->s.rip) & 0xffffffff;
}

static const uint32_t *generation_of(const struct cpu *cpu, uint64_t gpa)
{
        static const uint32_t rom = 0;
        uint64_t page = gpa >> 12;
        return page < cpu->memory->pages ? &cpu->memory->code_generation[page] : &rom;
}

/* Code of the page behind that of `linear`. */
static const uint8_t *fetch_next_page(struct cpu *cpu, uint64_t linear, uint64_t *ret_gpa)
{
        uint64_t next = (linear | PAGE_MASK) + 1;
        const uint8_t *host = cpu_fetch_page(cpu, cpu->long_mode ? next : next & 0xffffffff,
                                             ret_gpa);
        if (!host) {
                cpu->counters.unimplemented++; /* code in device memory */
                cpu_gp(cpu);
        }
        return host;
}

/* The instruction at `linear`, which does not end in its page. */
static struct block *block_decode_crossing(struct cpu *cpu, uint64_t linear, uint64_t gpa,
                                           const uint8_t *host)
{
        uint8_t bytes[INSN_SIZE_LIMIT];
        unsigned first = PAGE_SIZE_BYTES - (unsigned)(linear & PAGE_MASK);
        uint64_t page2;
        const uint8_t *host2 = fetch_next_page(cpu, linear, &page2);
        struct block b = { .gpa = gpa,
                           .generation_at = generation_of(cpu, gpa),
                           .generation_at2 = generation_of(cpu, page2),
                           .generation = cpu_mark_code(cpu, gpa),
                           .generation2 = cpu_mark_code(cpu, page2),
                           .page2 = page2,
                           .length = 1,
                           .mode = cpu->mode };
        memcpy(bytes, host, first);
        memcpy(bytes + first, host2, sizeof(bytes) - first);
        uint64_t epoch = cpu->epoch;
        b.steps = cpu->steps + cpu->steps_used;
        step_decode(cpu, bytes, sizeof(bytes), b.steps);
        if (cpu->epoch != epoch)
                return block_decode_crossing(cpu, linear, gpa, host);
        cpu->steps_used++;
        cpu->blocks[cpu->blocks_used] = b;
        cpu->counters.blocks_decoded++;
        return &cpu->blocks[cpu->blocks_used++];
}

/* Begins to fetch what tells whether the blocks behind `b`, `size` bytes long, are decoded. */
static void expect_next(const struct cpu *cpu, const struct block *b, unsigned size)
{
        const struct insn *last = &b->steps[b->length - 1].i;
        uint64_t next = b->gpa + size;
        cpu_block_expect(cpu, next);
        if (last->op == OP_JCC || last->op == OP_JMP || last->op == OP_CALL)
                cpu_block_expect(cpu, next + last->imm);
}

/* A place for a block of `length` steps, which were decoded behind all others: that of `old`, which
 * changed, or a new one. Code that is written again and again takes no more memory then. */
static struct block *block_place(struct cpu *cpu, struct block *old, struct step **steps,
                                 unsigned length)
{
        if (!old || length > old->length) {
                cpu->steps_used += length;
                return &cpu->blocks[cpu->blocks_used++];
        }
        memcpy(old->steps, *steps, length * sizeof(**steps));
        *steps = old->steps;
        if (unlikely(cpu->profile))
                cpu_profile_replaced(cpu, old);
        return old;
}

/* `old`: a block of this address whose place may be taken; or NULL. */
static struct block *block_decode(struct cpu *cpu, uint64_t linear, uint64_t gpa,
                                  const uint8_t *host, struct block *old)
{
        if (cpu->blocks_used == BLOCK_POOL || cpu->steps_used + BLOCK_STEPS > STEP_POOL) {
                cpu_code_flush(cpu);
                old = NULL;
        }
        const uint32_t *generation_at = generation_of(cpu, gpa);
        uint32_t generation = cpu_mark_code(cpu, gpa);
        unsigned at = 0, room = PAGE_SIZE_BYTES - (unsigned)(gpa & PAGE_MASK), n = 0;
        uint64_t epoch = cpu->epoch;
        struct step *steps = cpu->steps + cpu->steps_used;
        while (n < BLOCK_STEPS && at < room) {
                unsigned size = room - at < INSN_SIZE_LIMIT ? room - at : INSN_SIZE_LIMIT;
                if (!step_decode(cpu, host + at, size, &steps[n]))
                        break;
                if (cpu->epoch != epoch) /* the thunk pool was flushed, and all code */
                        return block_decode(cpu, linear, gpa, host, NULL);
                at += steps[n].i.length;
                if (ends_block(&steps[n++]))
                        break;
        }
        if (n == 0)
                return block_decode_crossing(cpu, linear, gpa, host);
        struct block *b = block_place(cpu, old, &steps, n);
        *b = (struct block){ .gpa = gpa,
                             .generation_at = generation_at,
                             .generation_at2 = generation_at,
                             .generation2 = generation,
                             .steps = steps,
                             .generation = generation,
                             .length = (uint16_t)n,
                             .mode = cpu->mode };
        cpu->counters.blocks_decoded++;
        expect_next(cpu, b, at);
        return b;
}

/* Whether the page behind is the one that it was. */
static bool crosses_as_then(struct cpu *cpu, const struct block *b, uint64_t linear)
{
        uint64_t page2;
        fetch_next_page(cpu, linear, &page2);
        return page2 == b->page2;
}

static bool has_steps(const struct block *b, const uint8_t *host)
{
        for (const struct step *s = b->steps, *end = s + b->length; s < end; s++) {
                if (!s->i.length || memcmp(host, s->bytes, s->i.length) != 0)
                        return false;
                host += s->i.length;
        }
        return true;
}

/* A block whose page was written elsewhere, once more. Its translation serves again where it says
 * nothing of other blocks; else there is another with the same steps, since it may be chained to
 * one that did change. NULL: it changed itself. */
static struct block *block_renew(struct cpu *cpu, struct block *old, const uint8_t *host)
{
        if (old->page2 || cpu->blocks_used == BLOCK_POOL)
                return NULL;
        uint32_t generation = cpu_mark_code(cpu, old->gpa);
        if (!has_steps(old, host))
                return NULL;
        cpu->counters.blocks_renewed++;
        if (!old->code || old->uses & BLOCK_ALONE) {
                old->generation = old->generation2 = generation;
                return old;
        }
        old->shared = true;
        struct block *b = &cpu->blocks[cpu->blocks_used++];
        *b = (struct block){ .gpa = old->gpa,
                             .generation_at = old->generation_at,
                             .generation_at2 = old->generation_at2,
                             .generation2 = generation,
                             .steps = old->steps,
                             .generation = generation,
                             .length = old->length,
                             .runs = old->runs,
                             .mode = old->mode,
                             .shared = true };
        return b;
}

static struct block *block_lookup(struct cpu *cpu, uint64_t linear)
{
        uint64_t gpa;
        const uint8_t *host = cpu_fetch_page(cpu, linear, &gpa);
        if (!host) {
                cpu->counters.unimplemented++; /* code in device memory */
                cpu_gp(cpu);
        }
        cpu->counters.blocks_searched++;
        struct block *b = cpu_block_at(cpu, gpa);
        if (b && block_current(b) && (!b->page2 || crosses_as_then(cpu, b, linear)))
                return b;
        struct block *new = b ? block_renew(cpu, b, host) : NULL;
        if (b)
                cpu->counters.blocks_invalidated++;
        /* Translated code, left a moment ago or about to be, refers to its block and steps. */
        bool free = b && !b->code && !b->shared && !b->page2;
        if (!new)
                new = block_decode(cpu, linear, gpa, host, free ? b : NULL);
        cpu_block_add(cpu, new);
        return new;
}

/* Whether the page that was just fetched from is global. */
static bool fetched_global(const struct cpu *cpu, uint64_t linear)
{
        const struct tlb *t = &cpu->tlbs[cpu->cpl == 3 ? CTX_USER : CTX_KERNEL];
        return t->fetch[tlb_index(linear)] == tlb_tag(linear) &&
               t->gpa[tlb_index(linear)] & TLB_GLOBAL;
}

static inline struct block *block_find(struct cpu *cpu)
{
        uint64_t linear = code_linear(cpu);
        struct jump_entry *j = &cpu->jumps[jump_index(linear)];
        if (likely(j->linear == linear && j->key == cpu->jump_key && block_current(j->block)))
                return j->block;
        struct block *b = block_lookup(cpu, linear);
        bool global = fetched_global(cpu, linear) &&
                      (!b->page2 || fetched_global(cpu, linear + PAGE_SIZE_BYTES));
        *j = (struct jump_entry){ linear, cpu->jump_key, b, global };
        return b;
}

/* ---- running ---- */

static inline void block_run(struct cpu *cpu, struct block *b, unsigned limit)
{
        const struct step *step = b->steps;
        if (unlikely(cpu->profile))
                cpu_profile_interpreted(cpu, b, limit);
        cpu->block = b;
        cpu->block_page = b->gpa & ~PAGE_MASK;
        cpu->code_changed = false;
        cpu->end = step + limit;
        do {
                cpu->step = step;
                cpu->s.rip += step->i.length;
                step->run(cpu, step);
                step++;
        } while (step != cpu->end);
        cpu->step = NULL;
        cpu->counters.instructions += (uint64_t)(step - b->steps);
        cpu->counters.blocks_run++;
}

static void check_code_breakpoints(struct cpu *cpu, uint64_t linear)
{
        unsigned hits = cpu_code_hits(cpu->s.dr, cpu->s.dr7, linear);
        if (hits && !(cpu->s.rflags & RF_RF))
                cpu_raise_debug(cpu, hits);
}

/* Instructions after which TF as they left it decides about the trap: gates clear it, and
 * SYSCALL enters the kernel without a trap there when it masks it. */
static bool traps_by_result(unsigned op)
{
        return op == OP_INT || op == OP_INT1 || op == OP_INT3 || op == OP_INTO || op == OP_SYSCALL;
}

/* One instruction with all that may be asked about it. False: a debugger stops
 * here. */
static bool run_slowly(struct cpu *cpu)
{
        uint64_t linear = code_linear(cpu);
        cpu->stop_hits |= cpu_code_hits(cpu->debug.dr, cpu->debug.dr7, linear);
        if (cpu->stop_hits)
                return false;
        if (cpu->s.dr7 & 0xff)
                check_code_breakpoints(cpu, linear);
        bool trap = cpu->s.rflags & FLAG_TF;
        cpu->debug_hits = cpu->s.interrupt_shadow ? cpu->debug_held : 0;
        cpu->debug_held = 0;
        cpu->s.interrupt_shadow = false;
        struct block *b = block_find(cpu);
        unsigned op = b->steps->i.op;
        block_run(cpu, b, 1);
        if (cpu->s.rflags & RF_RF && op != OP_IRET) {
                cpu->s.rflags &= ~(uint64_t)RF_RF;
                cpu_mode_changed(cpu);
        }
        if (traps_by_result(op))
                trap = cpu->s.rflags & FLAG_TF;
        if (cpu->s.interrupt_shadow && op != OP_STI) {
                /* MOV SS holds traps back with the interrupts; STI does not. */
                cpu->debug_held = cpu->debug_hits;
                return true;
        }
        if (op == OP_INT1) /* stands for what was held */
                cpu->debug_hits = 0;
        if (trap)
                cpu->debug_hits |= DR6_BS;
        if (cpu->debug_hits)
                cpu_raise_debug(cpu, cpu->debug_hits);
        return !cpu->stop_hits;
}

/* What cpu_run() returns while the processor does not execute. */
static enum cpu_exit idle_exit(const struct cpu *cpu)
{
        switch (cpu->s.activity) {
        case CPU_HALTED:
                return CPU_EXIT_HALT;
        case CPU_WAIT_FOR_SIPI:
                return CPU_EXIT_WAIT_SIPI;
        default:
                return CPU_EXIT_SHUTDOWN;
        }
}

/* Runs interpreted before a block is translated. */
#define TRANSLATE_AFTER 12u

/* Whether the block has code for the current state, or gets it now. */
static bool has_code(struct cpu *cpu, struct block *b)
{
        if (likely(b->code && b->key == cpu->translate_key))
                return true;
        if (cpu->mode != DECODE_64 || cpu->context == CTX_CHECKED)
                return false;
        if (cpu->translation != CPU_TRANSLATE_ALWAYS && ++b->runs < TRANSLATE_AFTER)
                return false;
        b->runs = 0;
        return cpu_translate_block(cpu, b);
}

/* Whether the shadow of STI or MOV SS keeps something waiting. With nothing to wait it has
 * no effect: what comes later finds at least one instruction done. */
static bool holds_back(const struct cpu *cpu, uint32_t pending)
{
        return pending || cpu->s.nmi_pending;
}

static enum cpu_exit run_loop(struct cpu *cpu, uint64_t deadline)
{
        bool translate = deadline == UINT64_MAX && cpu->translator.on &&
                         cpu->translation != CPU_TRANSLATE_NEVER;
        for (;;) {
                if (atomic_load_explicit(&cpu->poll, memory_order_relaxed))
                        cpu_jumps_resume(cpu);
                uint32_t pending = atomic_load_explicit(&cpu->pending, memory_order_relaxed);
                if (unlikely(pending || cpu->s.nmi_pending)) {
                        take_inputs(cpu);
                        cpu->came_from = NULL;
                        if (pending & PEND_KICK) {
                                atomic_fetch_and(&cpu->pending, ~PEND_KICK);
                                return CPU_EXIT_KICK;
                        }
                }
                if (unlikely(cpu->s.activity != CPU_RUNNING))
                        return idle_exit(cpu);
                if (unlikely(cpu->counters.instructions >= deadline))
                        return CPU_EXIT_BUDGET;
                if (unlikely(cpu->slow || (cpu->s.interrupt_shadow && holds_back(cpu, pending)) ||
                             (cpu->breaks && cpu_break_near(cpu, code_linear(cpu))))) {
                        cpu->came_from = NULL;
                        if (!run_slowly(cpu))
                                return CPU_EXIT_DEBUG;
                        continue;
                }
                cpu->s.interrupt_shadow = false;
                struct block *b = block_find(cpu);
                if (translate && !cpu->breaks && has_code(cpu, b)) {
                        cpu_translated_run(cpu, b);
                        continue;
                }
                cpu->came_from = NULL;
                uint64_t left = deadline - cpu->counters.instructions;
                block_run(cpu, b, likely(b->length <= left) ? b->length : (unsigned)left);
        }
}

static enum cpu_exit run_until(struct cpu *cpu, uint64_t deadline)
{
        if (sigsetjmp(cpu->escape, 0)) {
                cpu->step = NULL;
                cpu->came_from = NULL;
                if (cpu->fault.vector == FAULT_DEBUGGER)
                        return CPU_EXIT_DEBUG;
                cpu->counters.instructions++;
                cpu_deliver_fault(cpu);
        }
        return run_loop(cpu, deadline);
}

enum cpu_exit cpu_run(struct cpu *cpu, uint64_t budget)
{
        uint64_t deadline = cpu->counters.instructions + budget;
        if (deadline < budget)
                deadline = UINT64_MAX;
        cpu->stop_hits = 0;
        cpu_fpu_enter(cpu);
        cpu_translator_enter(cpu);
        enum cpu_exit reason = run_until(cpu, deadline);
        cpu_translator_leave(cpu);
        cpu_fpu_leave(cpu);
        return reason;
}
