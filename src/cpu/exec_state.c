/* FXSAVE and the XSAVE family: components x87 (0), SSE (1), AVX (2), PKRU (9), in the
 * standard format; in the compacted one only PKRU may have another place. */
#include "cpu/exec.h"

#include <string.h>

#define XSAVE_BYTES  832u
#define HEADER_AT    512u
#define AVX_AT       576u
#define PKRU_AT      832u
#define COMPACTED    (1ull << 63)
#define MXCSR_DOMAIN 0xffffu

static unsigned vec_registers(const struct cpu *cpu)
{
        return cpu->code64 ? 16 : 8;
}

static void image_x87(struct cpu *cpu, const struct step *st, uint8_t *image)
{
        cpu_x87_sync(cpu);
        memcpy(image, &cpu->s.x87, 24);
        if (!st->i.w) { /* 32-bit pointers and selectors, which we keep as 0 */
                memset(image + 12, 0, 4);
                memset(image + 20, 0, 4);
        }
        memcpy(image + 32, cpu->s.x87.st, 128);
}

static void image_mxcsr(struct cpu *cpu, uint8_t *image)
{
        uint32_t mxcsr = cpu_get_mxcsr(cpu), mask = MXCSR_DOMAIN;
        memcpy(image + 24, &mxcsr, 4);
        memcpy(image + 28, &mask, 4);
}

static void image_sse(struct cpu *cpu, uint8_t *image)
{
        for (unsigned i = 0; i < vec_registers(cpu); i++)
                memcpy(image + 160 + 16 * i, cpu->s.vec[i].bytes, 16);
}

static void take_x87(struct cpu *cpu, const struct step *st, const uint8_t *image)
{
        cpu_x87_sync(cpu);
        uint32_t mxcsr = cpu->s.x87.mxcsr;
        memcpy(&cpu->s.x87, image, 24);
        cpu->s.x87.reserved = 0;
        cpu->s.x87.mxcsr = mxcsr;
        if (!st->i.w) {
                cpu->s.x87.ip &= 0xffffffff;
                cpu->s.x87.dp &= 0xffffffff;
        }
        for (unsigned i = 0; i < 8; i++) {
                memcpy(cpu->s.x87.st[i], image + 32 + 16 * i, 10);
                memset(cpu->s.x87.st[i] + 10, 0, 6);
        }
        /* The host recomputes the summary bits when it loads this. */
        cpu_x87_load(cpu);
        cpu_x87_sync(cpu);
        cpu_x87_control(cpu, cpu->s.x87.control);
}

static void initial_x87(struct cpu *cpu)
{
        cpu_x87_sync(cpu);
        uint32_t mxcsr = cpu->s.x87.mxcsr;
        memset(&cpu->s.x87, 0, sizeof(cpu->s.x87));
        cpu->s.x87.control = 0x37f;
        cpu->s.x87.mxcsr = mxcsr;
        cpu_x87_control(cpu, cpu->s.x87.control);
}

static void need_fpu(struct cpu *cpu)
{
        if (cpu->s.cr0 & (CR0_EM | CR0_TS))
                cpu_raise(cpu, VEC_NM);
}

void exec_fxsave(struct cpu *cpu, const struct step *st)
{
        need_fpu(cpu);
        uint64_t at = step_linear(cpu, st, 512, true);
        if (at & 15)
                cpu_gp(cpu);
        uint8_t image[512];
        cpu_load_slow(cpu, at, image, sizeof(image)); /* what is not written stays */
        cpu_probe_write(cpu, at, sizeof(image));
        image_x87(cpu, st, image);
        image_mxcsr(cpu, image);
        image_sse(cpu, image);
        cpu_store_slow(cpu, at, image, sizeof(image));
}

static uint32_t checked_mxcsr(struct cpu *cpu, const uint8_t *image)
{
        uint32_t mxcsr;
        memcpy(&mxcsr, image + 24, 4);
        if (mxcsr & ~MXCSR_DOMAIN)
                cpu_gp(cpu);
        return mxcsr;
}

void exec_fxrstor(struct cpu *cpu, const struct step *st)
{
        need_fpu(cpu);
        uint64_t at = step_linear(cpu, st, 512, false);
        if (at & 15)
                cpu_gp(cpu);
        uint8_t image[512];
        cpu_load_slow(cpu, at, image, sizeof(image));
        uint32_t mxcsr = checked_mxcsr(cpu, image);
        take_x87(cpu, st, image);
        cpu_set_mxcsr(cpu, mxcsr);
        for (unsigned i = 0; i < vec_registers(cpu); i++)
                memcpy(cpu->s.vec[i].bytes, image + 160 + 16 * i, 16);
}

static uint64_t requested(const struct cpu *cpu)
{
        return cpu->s.xcr0 & ((uint32_t)cpu->s.gpr[CPU_RAX] | cpu->s.gpr[CPU_RDX] << 32);
}

static void need_xsave(struct cpu *cpu)
{
        if (!(cpu->s.cr4 & CR4_OSXSAVE))
                cpu_raise(cpu, VEC_UD);
        if (cpu->s.cr0 & CR0_TS)
                cpu_raise(cpu, VEC_NM);
}

/* Components not in their initial state. */
static uint64_t in_use(struct cpu *cpu)
{
        uint64_t use = 0;
        cpu_x87_sync(cpu);
        const struct cpu_x87 *x = &cpu->s.x87;
        bool st_zero = true;
        for (unsigned i = 0; i < 8 && st_zero; i++)
                for (unsigned k = 0; k < 10; k++)
                        st_zero = st_zero && !x->st[i][k];
        if (x->control != 0x37f || x->status || x->tag || x->ip || x->dp || x->opcode || !st_zero)
                use |= 1;
        for (unsigned i = 0; i < vec_registers(cpu); i++) {
                if (cpu->s.vec[i].qwords[0] | cpu->s.vec[i].qwords[1])
                        use |= 2;
                if (cpu->s.vec[i].qwords[2] | cpu->s.vec[i].qwords[3])
                        use |= 4;
        }
        return use | (cpu->s.pkru ? XSTATE_PKRU : 0);
}

/* `components`: XCOMP_BV of a compacted area. */
static uint64_t pkru_at(uint64_t area, uint64_t components)
{
        return area + (components & COMPACTED && !(components & 4) ? AVX_AT : PKRU_AT);
}

static void image_avx(struct cpu *cpu, uint8_t *image)
{
        for (unsigned i = 0; i < vec_registers(cpu); i++)
                memcpy(image + AVX_AT + 16 * i, cpu->s.vec[i].bytes + 16, 16);
}

static void save(struct cpu *cpu, const struct step *st, bool compacted)
{
        need_xsave(cpu);
        uint64_t rfbm = requested(cpu), use = in_use(cpu), bv;
        unsigned size = rfbm & 4 ? XSAVE_BYTES : AVX_AT;
        uint64_t at = step_linear(cpu, st, size, true);
        if (at & 63)
                cpu_gp(cpu);
        uint8_t image[XSAVE_BYTES];
        cpu_load_slow(cpu, at, image, size);
        cpu_probe_write(cpu, at, size);
        if (rfbm & XSTATE_PKRU && (!compacted || use & XSTATE_PKRU))
                store64(cpu, pkru_at(at, rfbm | (compacted ? COMPACTED : 0)), cpu->s.pkru);
        if (rfbm & 1 && (!compacted || use & 1))
                image_x87(cpu, st, image);
        if (rfbm & 6 && (!compacted || rfbm & 2))
                image_mxcsr(cpu, image);
        if (rfbm & 2 && (!compacted || use & 2))
                image_sse(cpu, image);
        if (rfbm & 4 && (!compacted || use & 4))
                image_avx(cpu, image);
        memcpy(&bv, image + HEADER_AT, 8);
        if (compacted) {
                /* MXCSR away from its initial value keeps SSE in use. */
                uint64_t head[2] = { rfbm & (use | (cpu_get_mxcsr(cpu) != 0x1f80 ? 2 : 0)),
                                     COMPACTED | rfbm };
                memcpy(image + HEADER_AT, head, 16);
                memset(image + HEADER_AT + 16, 0, 48);
        } else {
                bv = (bv & ~rfbm) | (rfbm & use);
                memcpy(image + HEADER_AT, &bv, 8);
        }
        cpu_store_slow(cpu, at, image, size);
}

void exec_xsave(struct cpu *cpu, const struct step *st)
{
        save(cpu, st, false);
}

void exec_xsavec(struct cpu *cpu, const struct step *st)
{
        save(cpu, st, true);
}

static void restore_vectors(struct cpu *cpu, const uint8_t *image, uint64_t rfbm, uint64_t bv)
{
        for (unsigned i = 0; i < vec_registers(cpu); i++) {
                uint8_t *v = cpu->s.vec[i].bytes;
                if (rfbm & 2 && bv & 2)
                        memcpy(v, image + 160 + 16 * i, 16);
                else if (rfbm & 2)
                        memset(v, 0, 16);
                if (rfbm & 4 && bv & 4)
                        memcpy(v + 16, image + AVX_AT + 16 * i, 16);
                else if (rfbm & 4)
                        memset(v + 16, 0, 16);
        }
}

void exec_xrstor(struct cpu *cpu, const struct step *st)
{
        need_xsave(cpu);
        uint64_t rfbm = requested(cpu), head[8];
        uint64_t at = step_linear(cpu, st, AVX_AT, false);
        if (at & 63)
                cpu_gp(cpu);
        uint8_t image[XSAVE_BYTES];
        cpu_load_slow(cpu, at, image, AVX_AT);
        memcpy(head, image + HEADER_AT, 64);
        bool compacted = head[1] & COMPACTED;
        uint64_t allowed = compacted ? head[1] & ~COMPACTED : cpu->s.xcr0;
        bool reserved = compacted ? (head[1] & ~COMPACTED & ~cpu->s.xcr0) != 0
                                  : (head[1] | head[2]) != 0;
        if (head[0] & ~allowed || head[0] & ~cpu->s.xcr0 || reserved)
                cpu_gp(cpu);
        if (compacted && (head[2] | head[3] | head[4] | head[5] | head[6] | head[7]))
                cpu_gp(cpu);
        if (rfbm & head[0] & 4)
                cpu_load_slow(cpu, at + AVX_AT, image + AVX_AT, XSAVE_BYTES - AVX_AT);
        uint64_t pkru = 0;
        if (rfbm & head[0] & XSTATE_PKRU)
                pkru = load64(cpu, pkru_at(at, head[1]));
        /* The standard form loads MXCSR with either vector component whatever
         * XSTATE_BV says; the compacted one only with SSE, or its initial value. */
        uint32_t mxcsr = cpu_get_mxcsr(cpu);
        if (!compacted && rfbm & 6)
                mxcsr = checked_mxcsr(cpu, image);
        else if (compacted && rfbm & 2)
                mxcsr = head[0] & 2 ? checked_mxcsr(cpu, image) : 0x1f80;
        if (rfbm & 1 && head[0] & 1)
                take_x87(cpu, st, image);
        else if (rfbm & 1)
                initial_x87(cpu);
        cpu_set_mxcsr(cpu, mxcsr);
        restore_vectors(cpu, image, rfbm, head[0]);
        if (rfbm & XSTATE_PKRU)
                cpu_set_key_rights(cpu, &cpu->s.pkru, (uint32_t)pkru);
        if (rfbm & 4)
                cpu->uppers = head[0] & 4 || !cpu->code64 ? UPPERS_USED : UPPERS_ZERO;
}
