/* The versioned form of the architectural state. */
#include "cpu/core.h"

#include <assert.h>
#include <string.h>

struct state_header {
        char magic[8];
        uint32_t version;
        uint32_t size_bytes; /* of what follows */
};

static const char magic[8] = "isleCPU";

static_assert(sizeof(struct cpu_state) % 32 == 0, "no padding to leak at the end");

int cpu_save(struct cpu *cpu, struct buf *ret, struct err *err)
{
        struct state_header header = { .version = CPU_STATE_VERSION,
                                       .size_bytes = sizeof(struct cpu_state) };
        memcpy(header.magic, magic, sizeof(magic));
        if (buf_append(ret, &header, sizeof(header)) < 0 ||
            buf_append(ret, &cpu->s, sizeof(cpu->s)) < 0)
                return err_set(err, ENOBUFS, "save the state of vCPU %u", cpu->index);
        return 0;
}

/* What would break an invariant of this room; the rest is the guest's business. */
static const char *state_problem(const struct cpu_state *s)
{
        if (s->rflags & RF_VM)
                return "virtual-8086 mode";
        if (s->cr0 & CR0_PG && !(s->cr0 & CR0_PE))
                return "paging without protection";
        if (s->cr4 & ~(uint64_t)CR4_ALLOWED)
                return "unknown bits in CR4";
        if (s->efer & ~(uint64_t)EFER_ALLOWED)
                return "unknown bits in EFER";
        if (s->efer & EFER_LMA && !(s->cr4 & CR4_PAE))
                return "long mode without PAE";
        if (s->xcr0 & ~XCR0_ALLOWED || !(s->xcr0 & 1))
                return "unsupported XCR0";
        if (s->x87.mxcsr & ~0xffffu)
                return "reserved bits in MXCSR";
        if (s->activity > CPU_SHUTDOWN)
                return "unknown activity";
        return NULL;
}

int cpu_state_check(const struct cpu_state *state, struct err *err)
{
        const char *problem = state_problem(state);
        return problem ? err_plain(err, EINVAL, "impossible CPU state: %s", problem) : 0;
}

int cpu_set_state(struct cpu *cpu, const struct cpu_state *state, struct err *err)
{
        int r = cpu_state_check(state, err);
        if (r < 0)
                return r;
        if (state->cr4 & ~cpu->cr4_allowed || state->xcr0 & ~cpu->xcr0_allowed)
                return err_plain(err, EINVAL,
                                 "CPU state uses features that this processor does not have: CR4 "
                                 "0x%llx, XCR0 0x%llx",
                                 (unsigned long long)state->cr4, (unsigned long long)state->xcr0);
        cpu->s = *state;
        cpu_state_changed(cpu);
        return 0;
}

int cpu_load(struct cpu *cpu, const void *data, size_t size, struct err *err)
{
        struct state_header header;
        struct cpu_state state;
        if (size != sizeof(header) + sizeof(state))
                return err_plain(err, EINVAL, "CPU state of %zu bytes, expected %zu", size,
                                 sizeof(header) + sizeof(state));
        memcpy(&header, data, sizeof(header));
        if (memcmp(header.magic, magic, sizeof(magic)) != 0)
                return err_plain(err, EINVAL, "not a CPU state");
        if (header.version != CPU_STATE_VERSION || header.size_bytes != sizeof(state))
                return err_plain(err, EINVAL, "CPU state of version %u, this program reads %u",
                                 header.version, CPU_STATE_VERSION);
        memcpy(&state, (const uint8_t *)data + sizeof(header), sizeof(state));
        return cpu_set_state(cpu, &state, err);
}
