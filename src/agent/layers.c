/* The container's root out of layers: the lower ones are an image on the first disk, the upper one
 * and the overlay's work directory are the host's, by virtio-fs. The file server refuses trusted
 * attributes, so the overlay's are user ones. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "agent/agent.h"
#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"

#define DISK "/dev/vda"
/* Twice what one request of the disk may be: a request costs more than what it carries. */
#define READ_AHEAD     "/sys/block/vda/queue/read_ahead_kb"
#define READ_AHEAD_KIB "2048"
#define LOWER          "/run/isle/lower"
#define ABOVE          "/run/isle/above"

static int mount_one(const char *type, const char *source, const char *target, unsigned long flags,
                     const char *data, const char *what, struct err *err)
{
        int r = file_make_dirs(AT_FDCWD, target, 0700, err);
        if (r == 0 && mount(source, target, type, flags | MS_NODEV, data) < 0)
                r = err_set(err, errno, "%s", what);
        return r;
}

static const char *wanted(char *const *words)
{
        for (; words && *words; words++)
                if (str_starts(*words, AGENT_LAYERS))
                        return str_after(*words, AGENT_LAYERS);
        return NULL;
}

int agent_mount_layers(struct err *err)
{
        auto_strv words = agent_command_line();
        const char *layers = wanted(words);
        if (!layers)
                return 0;
        auto_strv parts = str_split(layers, ',');
        bool read_only = strv_contains(parts, "ro");
        auto_free char *data =
                read_only
                        ? xasprintf("userxattr,lowerdir=" ABOVE "/%s:" LOWER, parts[0])
                        : xasprintf("userxattr,%slowerdir=" LOWER ",upperdir=" ABOVE
                                    "/%s,workdir=" ABOVE "/" AGENT_WORK,
                                    strv_contains(parts, "volatile") ? "volatile," : "", parts[0]);
        int r = agent_load_modules(AGENT_LAYER_MODULES, err);
        (void)file_put(AT_FDCWD, READ_AHEAD, READ_AHEAD_KIB, NULL);
        if (r == 0)
                r = mount_one("erofs", DISK, LOWER, MS_RDONLY, NULL, AGENT_BAD_IMAGE, err);
        if (r == 0)
                r = mount_one("virtiofs", AGENT_LAYERS_TAG, ABOVE, 0, NULL,
                              "mount the writable layer", err);
        return r == 0 ? mount_one("overlay", "overlay", AGENT_ROOT, read_only ? MS_RDONLY : 0, data,
                                  "mount the overlay of the layers", err)
                      : r;
}
