/* x87, MMX and MXCSR: whose state is in the host's registers when.
 *
 * MXCSR: the guest's is in the host's register between cpu_fpu_enter() and
 * cpu_fpu_leave(), with all exceptions masked; where the guest unmasked one,
 * exec_vector.c looks at the sticky bits after each instruction.
 *
 * x87: loaded at the first instruction that needs it and kept there, not "parked",
 * as long as the guest masks all exceptions, which it nearly always does;
 * otherwise loaded and saved around each instruction, so that a pending
 * exception never meets a waiting instruction of ours.
 */
#include "cpu/core.h"

#include <string.h>
#include <xmmintrin.h>

#define MXCSR_MASKS 0x1f80u
#define X87_MASKS   0x3fu

void cpu_set_mxcsr(struct cpu *cpu, uint32_t value)
{
        cpu->s.x87.mxcsr = value;
        cpu->unmasked_simd = (value & MXCSR_MASKS) != MXCSR_MASKS;
        if (cpu->in_guest)
                _mm_setcsr(value | MXCSR_MASKS);
}

uint32_t cpu_get_mxcsr(struct cpu *cpu)
{
        if (!cpu->in_guest)
                return cpu->s.x87.mxcsr;
        return (_mm_getcsr() & ~MXCSR_MASKS) | (cpu->s.x87.mxcsr & MXCSR_MASKS);
}

void cpu_fpu_enter(struct cpu *cpu)
{
        cpu->host_mxcsr = _mm_getcsr();
        cpu->in_guest = true;
        cpu_set_mxcsr(cpu, cpu->s.x87.mxcsr);
}

void cpu_fpu_leave(struct cpu *cpu)
{
        cpu_x87_sync(cpu);
        if (!cpu->in_guest)
                return;
        cpu->s.x87.mxcsr = cpu_get_mxcsr(cpu);
        cpu->in_guest = false;
        _mm_setcsr(cpu->host_mxcsr);
}

void cpu_x87_control(struct cpu *cpu, uint32_t control)
{
        bool unmasked = (control & X87_MASKS) != X87_MASKS;
        if (unmasked == cpu->unmasked_x87)
                return;
        cpu->unmasked_x87 = unmasked;
        cpu_mode_changed(cpu);
}

void cpu_x87_sync(struct cpu *cpu)
{
        if (cpu->x87_parked)
                return;
        /* FNINIT: our own code expects an empty register stack. */
        __asm__ volatile("fxsave64 %0\n\tfninit" : "=m"(cpu->fx));
        memcpy(&cpu->s.x87, cpu->fx, 24);
        memcpy(cpu->s.x87.st, cpu->fx + 32, sizeof(cpu->s.x87.st));
        cpu->s.x87.reserved = 0;
        cpu->s.x87.opcode = (uint16_t)cpu->fop;
        cpu->s.x87.ip = cpu->fip;
        cpu->s.x87.dp = cpu->fdp;
        cpu->x87_parked = true;
}

void cpu_x87_load(struct cpu *cpu)
{
        if (!cpu->x87_parked)
                return;
        uint32_t mxcsr = _mm_getcsr();
        memcpy(cpu->fx, &cpu->s.x87, 24);
        memcpy(cpu->fx + 24, &mxcsr, 4);
        memcpy(cpu->fx + 32, cpu->s.x87.st, sizeof(cpu->s.x87.st));
        cpu->fop = cpu->s.x87.opcode;
        cpu->fip = cpu->s.x87.ip;
        cpu->fdp = cpu->s.x87.dp;
        __asm__ volatile("fxrstor64 %0" : : "m"(cpu->fx));
        cpu->x87_parked = false;
}
