#include "vmm/share.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "vmm/snapshot/state.h"
#include "vmm/virtio/worker.h"

#define PAGE          MEMORY_PAGE_SIZE
#define RUN_MIN       (4 * PAGE) /* what a mapping of its own is worth */
#define RUNS_MAX      8192u      /* the kernel allows a process 65,530 mappings */
#define LOOK_NS       (5 * NS_PER_S)
#define LOOK_AGAIN_NS (60 * NS_PER_S)
#define IDLE_FRACTION 100            /* of the time that a guest may work and still idles */
#define WORTH_NS      (2 * NS_PER_S) /* of work since the last comparison */

struct share {
        struct device device;
        struct machine *machine;
        struct loop_source *timer;
        uint8_t *template;
        uint64_t size_bytes;
        int64_t looked_ns, busy_ns; /* the last look, and the processor's time until then */
        int64_t compared_ns;        /* that time at the last comparison; 0: none yet */
        struct share_sums sums;
};

/* ---- one comparison ---- */

enum kind { KIND_OWN, KIND_ZERO, KIND_SAME };

struct pass {
        struct memory *memory;
        uint8_t *template;
        uint64_t size_bytes;
        struct share_sums sums;
        unsigned runs;
};

static enum kind kind_of(const struct pass *p, uint64_t at)
{
        static const uint8_t zeros[MEMORY_PAGE_SIZE];
        const uint8_t *page = p->memory->map + at;
        if (memcmp(page, zeros, PAGE) == 0)
                return KIND_ZERO;
        bool same = at + PAGE <= p->size_bytes && memcmp(page, p->template + at, PAGE) == 0;
        return same ? KIND_SAME : KIND_OWN;
}

static int replace(struct pass *p, enum kind kind, uint64_t from, uint64_t to, struct err *err)
{
        uint64_t size = to - from;
        if (kind == KIND_ZERO) {
                memory_forget(p->memory, from, size);
                p->sums.zero += size;
                return 0;
        }
        if (kind == KIND_OWN || size < RUN_MIN || p->runs == RUNS_MAX)
                return 0;
        if (mremap(p->template + from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
                   p->memory->map + from) == MAP_FAILED)
                return err_set(err, errno, "share guest memory");
        /* Behind the new mapping nobody misses it. */
        (void)fallocate(p->memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
                        (off_t)size);
        p->memory->overlaid = true;
        p->sums.shared += size;
        p->runs++;
        return 0;
}

/* A part of the file that the host holds pages of. */
static int compare(struct pass *p, uint64_t from, uint64_t to, struct err *err)
{
        enum kind kind = KIND_OWN;
        uint64_t start = from;
        int r = 0;
        for (uint64_t at = from; r == 0 && at < to; at += PAGE) {
                enum kind next = kind_of(p, at);
                if (next == kind)
                        continue;
                r = replace(p, kind, start, at, err);
                kind = next;
                start = at;
        }
        return r < 0 ? r : replace(p, kind, start, to, err);
}

int share_pages(struct memory *memory, uint8_t *template, uint64_t size_bytes,
                struct share_sums *ret, struct err *err)
{
        struct pass p = { .memory = memory, .template = template, .size_bytes = size_bytes };
        off_t from = 0, to = 0;
        int r = 0;
        while (r == 0 && (from = lseek(memory->fd, to, SEEK_DATA)) >= 0) {
                to = lseek(memory->fd, from, SEEK_HOLE);
                r = to < 0 ? err_set(err, errno, "look through guest memory")
                           : compare(&p, (uint64_t)from, (uint64_t)to, err);
        }
        *ret = p.sums;
        return r;
}

/* ---- when ---- */

static int64_t process_ns(void)
{
        struct timespec t;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return t.tv_sec * NS_PER_S + t.tv_nsec;
}

static void compare_now(struct share *s)
{
        struct machine *m = s->machine;
        struct share_sums sums = { 0 };
        struct err err = { 0 };
        if (atomic_load(&m->pauses)) /* somebody else has it stand, and looks at it */
                return;
        machine_pause(m);
        int r = 0;
        if (workers_hold()) {
                r = share_pages(&m->memory, s->template, s->size_bytes, &sums, &err);
                workers_release();
                s->compared_ns = process_ns();
                s->sums.shared += sums.shared;
                s->sums.zero += sums.zero;
        }
        if (r < 0)
                machine_end(m, MACHINE_FAILED, 0, &err);
        machine_resume(m);
}

static void look(void *arg)
{
        struct share *s = arg;
        int64_t now = clock_monotonic_ns(), busy = process_ns();
        bool idle = busy - s->busy_ns < (now - s->looked_ns) / IDLE_FRACTION;
        if (idle && (!s->compared_ns || busy - s->compared_ns > WORTH_NS))
                compare_now(s);
        s->looked_ns = now;
        s->busy_ns = busy;
        loop_timer_arm(s->timer, s->compared_ns ? LOOK_AGAIN_NS : LOOK_NS);
}

/* ---- life ---- */

static void destroy(struct device *device)
{
        struct share *s = container_of(device, struct share, device);
        loop_source_destroy(s->timer);
        munmap(s->template, s->size_bytes);
        free(s);
}

static void counters(struct device *device, counter_fn *take, void *arg)
{
        const struct share *s = container_of(device, struct share, device);
        take(arg, "shared_bytes", s->sums.shared);
        take(arg, "zero_bytes", s->sums.zero);
}

static int map(const char *path, uint8_t **ret, uint64_t *ret_size, struct err *err)
{
        struct stat st;
        auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_set(err, errno, "template of memory '%s'", path);
        *ret_size = (uint64_t)st.st_size & ~(PAGE - 1);
        if (*ret_size == 0)
                return 0;
        void *at = mmap(NULL, *ret_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd,
                        0);
        if (at == MAP_FAILED)
                return err_set(err, errno, "map template of memory '%s'", path);
        *ret = at;
        return 0;
}

int share_create(struct machine *machine, const char *path, struct err *err)
{
        uint8_t *template = NULL;
        uint64_t size = 0;
        int r = map(path, &template, &size, err);
        if (r < 0 || size == 0)
                return r;
        struct share *s = new0(struct share);
        s->machine = machine;
        s->template = template;
        s->size_bytes = size;
        s->looked_ns = clock_monotonic_ns();
        machine_add_device(machine, &s->device, "memory-share", destroy);
        s->device.state = &state_nothing;
        s->device.counters = counters;
        r = loop_timer(machine->loop, look, s, &s->timer, err);
        if (r == 0)
                loop_timer_arm(s->timer, LOOK_NS);
        return r;
}
