#include "vmm/soft/profile.h"

#include <Zydis/Zydis.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"

struct profile {
        int report_fd, map_fd;
        struct cpu *cpus[MACHINE_VCPUS]; /* that count now */
        struct cpu_profile *counted[MACHINE_VCPUS];
        size_t length;
};

/* ---- Zydis, for whoever wants a profile only: its tables cost each process that links it ---- */

static typeof(ZydisDisassembleIntel) *zydis;

static int load_zydis(struct err *err)
{
        void *handle = zydis ? NULL : dlopen("libZydis.so.4.0", RTLD_NOW | RTLD_LOCAL);
        if (!zydis && !handle)
                return err_plain(err, ENOPKG, "cannot load Zydis (%s); install libzydis4.0",
                                 dlerror());
        if (!zydis)
                zydis = (typeof(zydis))dlsym(handle, "ZydisDisassembleIntel");
        return zydis ? 0 : err_plain(err, ENOPKG, "libZydis lacks ZydisDisassembleIntel");
}

static size_t disassemble(uint64_t linear, unsigned bits, const uint8_t *bytes, size_t size,
                          char *ret, size_t ret_size)
{
        ZydisMachineMode mode = bits == 64   ? ZYDIS_MACHINE_MODE_LONG_64
                                : bits == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                             : ZYDIS_MACHINE_MODE_LEGACY_16;
        ZydisDisassembledInstruction i;
        if (!ZYAN_SUCCESS(zydis(mode, linear, bytes, size, &i)))
                return 0;
        snprintf(ret, ret_size, "%s", i.text);
        return i.info.length;
}

/* ---- files ---- */

/* Where perf(1) looks: by our number as the user sees it, which /proc still knows. */
static int open_map(int *ret_fd, struct err *err)
{
        char pid[32] = "";
        if (readlink("/proc/self", pid, sizeof(pid) - 1) < 0)
                return err_set(err, errno, "read /proc/self");
        auto_free char *path = xasprintf("/tmp/perf-%s.map", pid);
        /* The name can be guessed and /tmp is everybody's: only what we make ourselves. */
        unlink(path);
        int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
                return err_set(err, errno, "make '%s'", path);
        *ret_fd = fd;
        return 0;
}

static int open_report(const char *path, int *ret_fd, struct err *err)
{
        int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
        if (fd < 0)
                return err_set(err, errno, "open '%s'", path);
        *ret_fd = fd;
        return 0;
}

/* ---- life ---- */

int profile_create(struct machine *m, const char *path, struct err *err)
{
        struct profile *p = new0(struct profile);
        struct soft_machine *soft = m->provider;
        p->report_fd = p->map_fd = -1;
        int r = load_zydis(err);
        if (r == 0)
                r = open_report(path, &p->report_fd, err);
        if (r == 0)
                r = open_map(&p->map_fd, err);
        for (unsigned i = 0; r == 0 && i < m->vcpus_length; i++) {
                struct soft_vcpu *s = m->vcpus[i].provider;
                r = cpu_profile_begin(s->cpu, p->map_fd, err);
                if (r == 0)
                        p->cpus[p->length++] = s->cpu;
        }
        soft->profile = p; /* which ends what was begun */
        return r < 0 ? err_wrap(err, "--profile") : 0;
}

void profile_keep(struct profile *p, struct cpu *cpu)
{
        for (size_t i = 0; p && i < p->length; i++) {
                if (p->cpus[i] != cpu)
                        continue;
                p->counted[i] = cpu_profile_end(cpu);
                p->cpus[i] = NULL;
        }
}

void profile_report(const struct profile *p, struct buf *ret)
{
        const struct cpu_profile *all[MACHINE_VCPUS];
        for (size_t i = 0; i < p->length; i++)
                all[i] = p->cpus[i] ? cpu_profile(p->cpus[i]) : p->counted[i];
        profile_write(ret, all, p->length, disassemble);
}

void profile_destroy(struct profile *p)
{
        if (!p)
                return;
        auto_buf text = { 0 };
        if (p->report_fd >= 0 && p->length) {
                profile_report(p, &text);
                if (io_write_full(p->report_fd, text.data, text.size) < 0)
                        fprintf(stderr, "isle-vmm: the profile could not be written\n");
        }
        for (size_t i = 0; i < p->length; i++)
                cpu_profile_destroy(p->counted[i]);
        if (p->report_fd >= 0)
                close_fd(&p->report_fd);
        if (p->map_fd >= 0)
                close_fd(&p->map_fd);
        free(p);
}
