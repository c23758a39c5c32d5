/* A debugger outside of the guest: breakpoints and watchpoints that the guest does not see.
 *
 * Code that was translated goes from block to block by itself: while there are
 * breakpoints all is interpreted, and on their pages an instruction at a time. An
 * INT3 costs nothing until it is met. */
#include "cpu/core.h"

unsigned cpu_code_hits(const uint64_t dr[4], uint64_t dr7, uint64_t linear)
{
        unsigned hits = 0;
        for (unsigned i = 0; i < 4; i++)
                if (dr7 >> 2 * i & 3 && !(dr7 >> (16 + 4 * i) & 3) && dr[i] == linear)
                        hits |= 1u << i;
        return hits;
}

bool cpu_watches(uint64_t dr7)
{
        bool watch = false;
        for (unsigned i = 0; i < 4; i++)
                watch |= (dr7 >> 2 * i & 3) && (dr7 >> (16 + 4 * i) & 1);
        return watch;
}

bool cpu_break_near(const struct cpu *cpu, uint64_t linear)
{
        for (unsigned i = 0; i < 4; i++)
                if (cpu->debug.dr7 >> 2 * i & 3 && (cpu->debug.dr[i] ^ linear) >> 12 == 0)
                        return true;
        return false;
}

static uint64_t code_linear(const struct cpu *cpu)
{
        return cpu->legacy ? (uint32_t)(cpu->s.seg[CPU_CS].base + cpu->s.rip) : cpu->s.rip;
}

void cpu_int3_stop(struct cpu *cpu)
{
        if (code_linear(cpu) - cpu->step->i.length != cpu->int3_passed)
                cpu_raise_to_debugger(cpu);
        cpu->int3_passed = UINT64_MAX;
}

void cpu_set_debug(struct cpu *cpu, const struct cpu_debug *debug)
{
        cpu->debug = *debug;
        cpu_mode_changed(cpu);
}

unsigned cpu_debug_hits(const struct cpu *cpu)
{
        return cpu->stop_hits;
}

void cpu_pass_int3(struct cpu *cpu)
{
        cpu->int3_passed = code_linear(cpu);
}
