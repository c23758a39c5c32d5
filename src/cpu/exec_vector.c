/* Instructions the host executes, and the vector ones it does not. */
#include "cpu/exec.h"

#include <string.h>
#include <xmmintrin.h>

#define MXCSR_FLAGS 0x3fu
#define MXCSR_MASKS 0x1f80u

static _Noreturn void raise_simd(struct cpu *cpu)
{
        cpu_raise(cpu, cpu->s.cr4 & CR4_OSXMMEXCPT ? VEC_XM : VEC_UD);
}

/* CVTPI2PS and CVTPI2PD with a memory source leave the x87 state alone. */
static bool uses_mmx(const struct insn *i)
{
        bool from_memory = i->is_mem && i->map == MAP_0F && i->code == 0x2a;
        return i->row->properties & MMX && !from_memory;
}

#define MXCSR_FZ 0x8000u
#define MXCSR_UM 0x0800u
#define MXCSR_UE 0x0010u

/* Runs the thunk where the guest unmasked a SIMD exception. True: one of those
 * was raised anew; registers are as before and #XM is due. What remains
 * unlike the processor: PE beside an unmasked UE or OE. */
static bool run_unmasked(struct cpu *cpu, const struct step *step, void *memory)
{
        union cpu_vec saved[16];
        uint64_t gpr[16], flags = cpu->s.rflags;
        uint32_t before = _mm_getcsr(), raised = 0;
        memcpy(saved, cpu->s.vec, sizeof(saved));
        memcpy(gpr, cpu->s.gpr, sizeof(gpr));
        if (!(cpu->s.x87.mxcsr & MXCSR_UM)) {
                /* Unmasked, a tiny result counts even when it is exact; masked, only
                 * flushing to zero shows it. */
                _mm_setcsr((before & ~MXCSR_FLAGS) | MXCSR_FZ);
                step->thunk(cpu, memory);
                raised = _mm_getcsr() & MXCSR_UE;
                memcpy(cpu->s.vec, saved, sizeof(saved));
                memcpy(cpu->s.gpr, gpr, sizeof(gpr));
                cpu->s.rflags = flags;
        }
        _mm_setcsr(before & ~MXCSR_FLAGS);
        step->thunk(cpu, memory);
        raised |= _mm_getcsr() & MXCSR_FLAGS;
        uint32_t unmasked = raised & ~(cpu->s.x87.mxcsr >> 7);
        /* Invalid, denormal and divide come before the operation: with one of them
         * unmasked, no result exists that could overflow or be inexact. */
        if (unmasked & 7)
                raised &= 7;
        _mm_setcsr(before | raised);
        if (!unmasked)
                return false;
        memcpy(cpu->s.vec, saved, sizeof(saved));
        memcpy(cpu->s.gpr, gpr, sizeof(gpr));
        cpu->s.rflags = flags;
        return true;
}

/* MMX registers are the x87's. They are loaded first; an exception of the
 * conversion (CVTPS2PI and its like) leaves their contents, but they are in MMX
 * state by then. */
static void run_mmx(struct cpu *cpu, const struct step *step, void *memory)
{
        bool exact = cpu->x87_parked && (cpu->s.x87.control & 0x3f) != 0x3f;
        bool simd = cpu->unmasked_simd && step->i.row->properties & FP;
        if (cpu->x87_parked && cpu->s.x87.status & 0x80)
                cpu_raise(cpu, VEC_MF);
        if (simd) {
                cpu_x87_sync(cpu);
                struct cpu_x87 before = cpu->s.x87;
                cpu_x87_load(cpu);
                if (run_unmasked(cpu, step, memory)) {
                        cpu_x87_sync(cpu);
                        uint32_t mxcsr = cpu->s.x87.mxcsr;
                        cpu->s.x87 = before;
                        cpu->s.x87.mxcsr = mxcsr;
                        cpu_x87_load(cpu);
                        __asm__ volatile("movd %%mm0, %0" : "=r"(mxcsr));
                        cpu_x87_sync(cpu);
                        raise_simd(cpu);
                }
        } else {
                cpu_x87_load(cpu);
                step->thunk(cpu, memory);
        }
        if (exact)
                cpu_x87_sync(cpu);
}

static void run(struct cpu *cpu, const struct step *step, void *memory)
{
        uint64_t p = step->i.row->properties;
        if (unlikely(uses_mmx(&step->i))) {
                run_mmx(cpu, step, memory);
        } else if (unlikely(cpu->unmasked_simd && p & FP)) {
                if (run_unmasked(cpu, step, memory))
                        raise_simd(cpu);
        } else {
                step->thunk(cpu, memory);
        }
}

void exec_host_reg(struct cpu *cpu, const struct step *step)
{
        check_unit(cpu, step);
        run(cpu, step, cpu->bounce);
}

void exec_host(struct cpu *cpu, const struct step *step)
{
        check_unit(cpu, step);
        unsigned size = step->i.mem_size;
        bool write = step->i.mem_write;
        if (unlikely(uses_mmx(&step->i) && cpu->x87_parked && cpu->s.x87.status & 0x80))
                cpu_raise(cpu, VEC_MF);
        uint64_t linear = step_linear(cpu, step, size, write);
        if (step->i.mem_aligned && linear & (size - 1))
                cpu_gp(cpu);
        void *host = mem_host(cpu, linear, size, write);
        /* A store that an unmasked exception may suppress goes through the bounce. */
        if (likely(host != NULL && !(write && cpu->unmasked_simd))) {
                run(cpu, step, host);
                return;
        }
        if (step->i.mem_read)
                cpu_load_slow(cpu, linear, cpu->bounce, size);
        if (write)
                cpu_probe_write(cpu, linear, size);
        run(cpu, step, cpu->bounce);
        if (write)
                cpu_store_slow(cpu, linear, cpu->bounce, size);
}

/* ---- x87 ---- */

static bool x87_waits(const struct insn *i)
{
        unsigned escape = i->code & 7, reg = i->modrm >> 3 & 7;
        if (!x87_control(i))
                return true;
        return i->is_mem && ((escape == 1 && reg <= 5) || (escape == 5 && reg == 4));
}

/* The environment's pointers are ours: the host's point into the thunk. */
static void x87_fix_environment(struct cpu *cpu, const struct step *step)
{
        uint8_t *b = cpu->bounce;
        uint32_t ip = (uint32_t)cpu->fip, dp = (uint32_t)cpu->fdp;
        uint32_t cs = (uint32_t)cpu->fop << 16;
        if (step->i.mem_size == 28 || step->i.mem_size == 108) {
                memcpy(b + 12, &ip, 4);
                memcpy(b + 16, &cs, 4);
                memcpy(b + 20, &dp, 4);
                memset(b + 24, 0, 4);
        } else {
                memcpy(b + 6, &ip, 2);
                memset(b + 8, 0, 2);
                memcpy(b + 10, &dp, 2);
                memset(b + 12, 0, 2);
        }
}

static void x87_load_environment(struct cpu *cpu, const struct step *step)
{
        uint32_t ip = 0, cs = 0, dp = 0;
        bool wide = step->i.mem_size == 28 || step->i.mem_size == 108;
        memcpy(&ip, cpu->bounce + (wide ? 12 : 6), wide ? 4 : 2);
        memcpy(&dp, cpu->bounce + (wide ? 20 : 10), wide ? 4 : 2);
        if (wide)
                memcpy(&cs, cpu->bounce + 16, 4);
        cpu->fip = ip;
        cpu->fdp = dp;
        cpu->fop = cs >> 16 & 0x7ff;
}

static void x87_run(struct cpu *cpu, const struct step *step, uint64_t offset)
{
        bool exact = cpu->x87_parked && (cpu->s.x87.control & 0x3f) != 0x3f;
        bool environment = step->i.mem_size >= 14;
        cpu_x87_load(cpu);
        step->thunk(cpu, cpu->bounce);
        if (!x87_control(&step->i)) {
                cpu->fip = cpu->s.rip - step->i.length;
                cpu->fop = x87_opcode(&step->i);
                if (step->i.is_mem)
                        cpu->fdp = offset;
        } else {
                uint16_t control = 0;
                if (environment && step->i.mem_read)
                        x87_load_environment(cpu, step);
                if (environment && step->i.mem_write)
                        x87_fix_environment(cpu, step);
                if (step->i.code == 0xdb || (step->i.mem_write && step->i.mem_size > 28))
                        cpu->fip = cpu->fdp = cpu->fop = 0; /* FNINIT, FNSAVE */
                __asm__ volatile("fnstcw %0" : "=m"(control));
                cpu_x87_control(cpu, control);
                exact = exact || cpu->unmasked_x87;
        }
        if (exact)
                cpu_x87_sync(cpu);
}

void exec_x87(struct cpu *cpu, const struct step *step)
{
        check_unit(cpu, step);
        if (cpu->x87_parked && cpu->s.x87.status & 0x80 && x87_waits(&step->i))
                cpu_raise(cpu, VEC_MF);
        if (!step->i.is_mem) {
                x87_run(cpu, step, 0);
                return;
        }
        unsigned size = step->i.mem_size;
        uint64_t offset = step_offset(cpu, step);
        uint64_t linear = seg_linear(cpu, step->i.seg, offset, size, step->i.mem_write);
        if (step->i.mem_write)
                cpu_probe_write(cpu, linear, size);
        /* An unmasked exception suppresses the store: what was there stays. */
        const void *host = mem_host(cpu, linear, size, false);
        if (host)
                memcpy(cpu->bounce, host, size);
        else
                cpu_load_slow(cpu, linear, cpu->bounce, size);
        x87_run(cpu, step, offset);
        if (!step->i.mem_write)
                return;
        void *to = mem_host(cpu, linear, size, true);
        if (to)
                memcpy(to, cpu->bounce, size);
        else
                cpu_store_slow(cpu, linear, cpu->bounce, size);
}

void exec_fwait(struct cpu *cpu, const struct step *step)
{
        (void)step;
        if ((cpu->s.cr0 & (CR0_TS | CR0_MP)) == (CR0_TS | CR0_MP))
                cpu_raise(cpu, VEC_NM);
        if (cpu->x87_parked && cpu->s.x87.status & 0x80)
                cpu_raise(cpu, VEC_MF);
}

void exec_emms(struct cpu *cpu, const struct step *step)
{
        check_unit(cpu, step);
        if (cpu->x87_parked && cpu->s.x87.status & 0x80)
                cpu_raise(cpu, VEC_MF);
        bool exact = cpu->x87_parked && (cpu->s.x87.control & 0x3f) != 0x3f;
        cpu_x87_load(cpu);
        __asm__ volatile("emms");
        if (exact)
                cpu_x87_sync(cpu);
}

/* ---- MXCSR ---- */

void exec_ldmxcsr(struct cpu *cpu, const struct step *step)
{
        check_unit(cpu, step);
        uint32_t value = load32(cpu, step_linear(cpu, step, 4, false));
        if (value & ~0xffffu)
                cpu_gp(cpu);
        cpu_set_mxcsr(cpu, value);
}

void exec_stmxcsr(struct cpu *cpu, const struct step *step)
{
        check_unit(cpu, step);
        store32(cpu, step_linear(cpu, step, 4, true), cpu_get_mxcsr(cpu));
}

/* ---- vector instructions with irregular memory access ---- */

void exec_vzero(struct cpu *cpu, const struct step *step)
{
        check_unit(cpu, step);
        unsigned registers = cpu->code64 ? 16 : 8;
        for (unsigned i = 0; i < registers; i++) {
                cpu->s.vec[i].qwords[2] = cpu->s.vec[i].qwords[3] = 0;
                if (step->i.vex_l)
                        cpu->s.vec[i].qwords[0] = cpu->s.vec[i].qwords[1] = 0;
        }
        if (cpu->code64)
                cpu->uppers = UPPERS_ZERO;
}

/* Only elements whose mask bit is set are accessed, and may fault. */
void exec_vmaskmov(struct cpu *cpu, const struct step *step)
{
        check_unit(cpu, step);
        bool store = step->i.mem_write;
        bool integer = step->i.code >= 0x80;
        unsigned element = (integer ? step->i.w : step->i.code & 1) ? 8 : 4;
        unsigned count = step->i.mem_size / element;
        uint64_t linear = step_linear(cpu, step, step->i.mem_size, store);
        const union cpu_vec *mask = &cpu->s.vec[step->i.vvvv];
        union cpu_vec result = { .qwords = { 0 } };
        for (unsigned i = 0; i < count; i++) {
                if (!(mask->bytes[i * element + element - 1] & 0x80))
                        continue;
                if (store)
                        cpu_probe_write(cpu, linear + i * element, element);
                else
                        cpu_load_slow(cpu, linear + i * element, result.bytes + i * element,
                                      element);
        }
        if (!store) {
                cpu->s.vec[step->i.reg] = result;
                return;
        }
        for (unsigned i = 0; i < count; i++)
                if (mask->bytes[i * element + element - 1] & 0x80)
                        cpu_store_slow(cpu, linear + i * element,
                                       cpu->s.vec[step->i.reg].bytes + i * element, element);
}

void exec_maskmovq(struct cpu *cpu, const struct step *step)
{
        check_unit(cpu, step);
        unsigned size = step->i.row->properties & MMX ? 8 : 16;
        const uint8_t *mask = cpu->s.vec[step->i.rm].bytes, *data = cpu->s.vec[step->i.reg].bytes;
        if (size == 8) {
                if (cpu->x87_parked && cpu->s.x87.status & 0x80)
                        cpu_raise(cpu, VEC_MF);
                cpu_x87_sync(cpu);
                mask = cpu->s.x87.st[step->i.rm];
                data = cpu->s.x87.st[step->i.reg];
        }
        uint64_t offset = cpu->s.gpr[CPU_RDI] & address_mask(step);
        uint64_t linear = seg_linear(cpu, step->i.seg, offset, size, true);
        for (unsigned i = 0; i < size; i++)
                if (mask[i] & 0x80)
                        cpu_probe_write(cpu, linear + i, 1);
        if (size == 8) { /* as every MMX instruction: TOP 0, all registers in use */
                cpu->s.x87.status &= 0xc7ff;
                cpu->s.x87.tag = 0xff;
        }
        for (unsigned i = 0; i < size; i++)
                if (mask[i] & 0x80)
                        store8(cpu, linear + i, data[i]);
}

/* Elements are loaded in order; a fault leaves those loaded with their mask
 * bits cleared, so that the instruction can be restarted. */
void exec_vgather(struct cpu *cpu, const struct step *step)
{
        check_unit(cpu, step);
        unsigned element = step->i.w ? 8 : 4;
        unsigned index_size = step->i.code & 1 ? 8 : 4;
        unsigned width = step->i.vex_l ? 32 : 16;
        unsigned count = width / (element > index_size ? element : index_size);
        union cpu_vec *dst = &cpu->s.vec[step->i.reg], *mask = &cpu->s.vec[step->i.vvvv];
        const union cpu_vec index = cpu->s.vec[step->i.index];
        uint64_t base = SLOT(cpu, uint64_t, step->base) + (uint64_t)step->i.disp;
        for (unsigned i = 0; i < count; i++) {
                uint8_t *m = mask->bytes + i * element;
                if (!(m[element - 1] & 0x80)) {
                        memset(m, 0, element);
                        continue;
                }
                int64_t n = index_size == 8 ? (int64_t)index.qwords[i] : (int32_t)index.dwords[i];
                uint64_t offset = (base + ((uint64_t)n << step->i.scale)) & address_mask(step);
                uint64_t linear = seg_linear(cpu, step->i.seg, offset, element, false);
                uint64_t value = load_size(cpu, linear, element);
                memcpy(dst->bytes + i * element, &value, element);
                memset(m, 0, element);
        }
        memset(mask, 0, sizeof(*mask));
        unsigned used = count * element;
        if (used > 16 && !step->i.vex_l)
                used = 16;
        memset(dst->bytes + used, 0, sizeof(*dst) - used);
}
