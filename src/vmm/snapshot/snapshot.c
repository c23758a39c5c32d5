#include "vmm/snapshot/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/rand.h"
#include "base/str.h"
#include "vmm/snapshot/cpus.h"
#include "vmm/snapshot/devices.h"
#include "vmm/snapshot/state.h"
#include "vmm/virtio/worker.h"

/* What a machine is, before anything of it is loaded. */
struct outline {
        uint64_t memory_bytes;
        uint32_t vcpus;
        uint8_t identity[SNAPSHOT_IDENTITY_SIZE];
};

static const struct state_field outline_fields[] = {
        STATE_FIELD(struct outline, memory_bytes, UINT64_MAX),
        STATE_FIELD(struct outline, vcpus, MACHINE_VCPUS),
        STATE_ARRAY(struct outline, identity, UINT8_MAX),
};

/* ---- saving ---- */

static int save_state(struct machine *m, struct state_writer *w, const struct outline *outline,
                      struct err *err)
{
        state_begin(w, "machine", 0, 1);
        state_put_fields(w, outline, outline_fields, ELEMENTS(outline_fields));
        state_close(w);
        int r = devices_save(m, w, err);
        return r < 0 ? r : cpus_save(m, w, err);
}

static int save(struct machine *m, int memory_fd, struct buf *ret, struct err *err)
{
        struct outline outline = { m->memory.size_bytes, m->vcpus_length, { 0 } };
        struct state_writer w;
        const void *data = NULL;
        size_t size = 0;
        rand_bytes(outline.identity, sizeof(outline.identity));
        state_writer_init(&w, clock_monotonic_ns());
        int r = save_state(m, &w, &outline, err);
        if (r == 0)
                r = state_seal(&w, &data, &size, err);
        if (r == 0)
                r = snapshot_memory_write(&m->memory, memory_fd, outline.identity, err);
        if (r == 0 && buf_append(ret, data, size) < 0)
                r = err_plain(err, ENOBUFS, "the machine's state of %zu bytes", size);
        state_writer_finish(&w);
        return r;
}

int snapshot_save(struct machine *m, int memory_fd, struct buf *ret, struct err *err)
{
        workers_quiesce();
        int r = save(m, memory_fd, ret, err);
        workers_release();
        return r;
}

/* ---- opening ---- */

int snapshot_open(const char *dir, struct snapshot *ret, struct err *err)
{
        struct snapshot s = { .memory_fd = -1 };
        s.name = xasprintf("%s/" SNAPSHOT_STATE, dir);
        s.memory_name = xasprintf("%s/" SNAPSHOT_MEMORY, dir);
        int r = file_read(AT_FDCWD, s.name, STATE_SIZE_MAX, &s.state, &s.state_size, err);
        if (r == 0) {
                s.memory_fd = open(s.memory_name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
                if (s.memory_fd < 0)
                        r = err_set(err, errno, "snapshot memory '%s'", s.memory_name);
        } else {
                err_wrap(err, "snapshot '%s'", dir);
        }
        if (r < 0) {
                snapshot_close(&s);
                return r;
        }
        *ret = s;
        return 0;
}

void snapshot_close(struct snapshot *s)
{
        if (s->memory_fd >= 0)
                close_fd(&s->memory_fd);
        free(s->name);
        free(s->memory_name);
        free(s->state);
        *s = (struct snapshot){ .memory_fd = -1 };
}

/* ---- loading ---- */

static int read_outline(struct state_reader *reader, struct outline *ret, struct err *err)
{
        struct state_section *s = NULL;
        int r = state_take(reader, "machine", 0, 1, &s, err);
        if (r < 0)
                return r;
        state_get_fields(s, ret, outline_fields, ELEMENTS(outline_fields));
        return state_end(s, err);
}

static int open_reader(const struct snapshot *s, struct state_reader *ret, struct outline *outline,
                       struct err *err)
{
        int r = state_reader_init(ret, s->name, s->state, s->state_size, clock_monotonic_ns(), err);
        return r < 0 ? r : read_outline(ret, outline, err);
}

static int compare(const struct snapshot *s, const struct outline *o, uint64_t memory_bytes,
                   unsigned vcpus, struct err *err)
{
        if (o->memory_bytes != memory_bytes)
                return err_plain(err, EINVAL,
                                 "snapshot '%s' is of a machine with %llu MiB of memory, not %llu; "
                                 "--memory %llum restores it",
                                 s->name, (unsigned long long)(o->memory_bytes >> 20),
                                 (unsigned long long)(memory_bytes >> 20),
                                 (unsigned long long)(o->memory_bytes >> 20));
        if (o->vcpus != vcpus)
                return err_plain(err, EINVAL,
                                 "snapshot '%s' is of a machine with %u vCPUs, not %u; --cpus %u "
                                 "restores it",
                                 s->name, o->vcpus, vcpus, o->vcpus);
        return snapshot_memory_check(s->memory_fd, s->memory_name, memory_bytes, o->identity, err);
}

int snapshot_fits(const struct snapshot *s, uint64_t memory_bytes, unsigned vcpus, struct err *err)
{
        struct state_reader reader = { 0 };
        struct outline outline = { 0 };
        int r = open_reader(s, &reader, &outline, err);
        if (r == 0)
                r = compare(s, &outline, memory_bytes, vcpus, err);
        state_reader_finish(&reader);
        return r;
}

int snapshot_load(const struct snapshot *s, struct machine *m, struct err *err)
{
        struct state_reader reader = { 0 };
        struct outline outline = { 0 };
        int r = open_reader(s, &reader, &outline, err);
        if (r == 0)
                r = cpus_load(m, &reader, err);
        if (r == 0)
                r = devices_load(m, &reader, err);
        if (r == 0)
                r = state_all_taken(&reader, err);
        state_reader_finish(&reader);
        return r;
}
