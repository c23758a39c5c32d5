/* Any bytes as a client of the gdb stub, in front of a machine of 4 KiB that stops at once
 * each time it is let go. The first byte says how many vCPUs it has. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/gdb/session.h"

#define MEMORY_BYTES 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct model {
        struct gdb_session session;
        struct cpu_state states[GDB_VCPUS_MAX];
        struct gdb_points points;
        uint8_t memory[MEMORY_BYTES];
        unsigned resumes;
};

static void check_vcpu(const struct model *m, unsigned vcpu)
{
        if (vcpu >= m->session.vcpus)
                abort();
}

static int get_state(void *arg, unsigned vcpu, struct cpu_state *ret)
{
        const struct model *m = arg;
        check_vcpu(m, vcpu);
        *ret = m->states[vcpu];
        return 0;
}

static int set_state(void *arg, unsigned vcpu, const struct cpu_state *state, struct err *err)
{
        struct model *m = arg;
        (void)err;
        check_vcpu(m, vcpu);
        m->states[vcpu] = *state;
        return state->x87.mxcsr & ~0xffffu ? abort(), 0 : 0;
}

static bool inside(uint64_t address, size_t size)
{
        return address <= MEMORY_BYTES && size <= MEMORY_BYTES - address;
}

static int read_memory(void *arg, unsigned vcpu, uint64_t address, uint8_t *bytes, size_t size)
{
        const struct model *m = arg;
        check_vcpu(m, vcpu);
        if (!inside(address, size))
                return -EFAULT;
        memcpy(bytes, m->memory + address, size);
        return 0;
}

static int write_memory(void *arg, unsigned vcpu, uint64_t address, const uint8_t *bytes,
                        size_t size)
{
        struct model *m = arg;
        check_vcpu(m, vcpu);
        if (!inside(address, size))
                return -EFAULT;
        memcpy(m->memory + address, bytes, size);
        return 0;
}

static int change_point(void *arg, unsigned vcpu, enum gdb_point kind, uint64_t address,
                        uint64_t size, bool set)
{
        struct model *m = arg;
        struct vcpu_debug debug;
        check_vcpu(m, vcpu);
        if (kind == GDB_SOFTWARE)
                return -ENOSPC;
        int r = set ? gdb_points_watch(&m->points, kind, address, size)
                    : gdb_points_unwatch(&m->points, kind, address, size);
        gdb_points_registers(&m->points, &debug);
        return r;
}

static int resume(void *arg, const uint8_t *actions)
{
        struct model *m = arg;
        if (!m->session.running)
                abort();
        for (unsigned i = 0; i < m->session.vcpus; i++)
                if (actions[i] > GDB_STEP)
                        abort();
        if (++m->resumes % 3)
                return 0;
        gdb_session_stopped(&m->session,
                            &(struct gdb_stop){ .kind = GDB_AT_POINT, .point = GDB_WRITE });
        return 0;
}

static void interrupt(void *arg)
{
        struct model *m = arg;
        gdb_session_stopped(&m->session, &(struct gdb_stop){ .kind = GDB_INTERRUPTED });
}

static void kill_machine(void *arg)
{
        (void)arg;
}

static const struct gdb_target target = { get_state,    set_state, read_memory, write_memory,
                                          change_point, resume,    interrupt,   kill_machine };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct model m;
        if (!size)
                return 0;
        memset(&m, 0, sizeof(m));
        gdb_session_init(&m.session, &target, &m, 1 + data[0] % GDB_VCPUS_MAX);
        for (size_t done = 1; done < size && !m.session.over;) {
                size_t n = gdb_session_take(&m.session, data + done, size - done);
                if (!n || n > size - done)
                        abort();
                done += n;
                if (m.session.out.size > 8 * GDB_PACKET_MAX) /* a bounded answer to each */
                        abort();
                buf_reset(&m.session.out);
        }
        gdb_session_finish(&m.session);
        return 0;
}
