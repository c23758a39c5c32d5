#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "guest/guest.h"
#include "sys/resolve.h"

static bool is_below(const char *path, const char *directory)
{
        const char *rest = str_after(path, directory);
        return rest && *rest == '/';
}

/* What lies in another mount is made there, by the guest. */
static bool lies_in_mount(const struct oci_spec *spec, size_t index)
{
        for (size_t i = 0; i < index; i++)
                if (is_below(spec->mounts[index].destination, spec->mounts[i].destination))
                        return true;
        return false;
}

static int make_target(int root_fd, const struct oci_mount *mount, struct err *err)
{
        auto_fd target = -1;
        struct stat st;
        bool is_file = guest_mount_is_bind(mount) && stat(mount->source, &st) == 0 &&
                       !S_ISDIR(st.st_mode);
        int r = is_file ? resolve_make_file(root_fd, mount->destination, 0755, &target, err)
                        : resolve_make_dir(root_fd, mount->destination, 0755, &target, err);
        return r < 0 ? err_wrap(err, "mount point in the read-only root") : 0;
}

int guest_make_targets(const struct oci_spec *spec, struct err *err)
{
        auto_fd root_fd = open(spec->root->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (root_fd < 0)
                return err_set(err, errno, "open '%s'", spec->root->path);
        int r = 0;
        for (size_t i = 0; r == 0 && i < spec->mounts_length; i++)
                if (!lies_in_mount(spec, i))
                        r = make_target(root_fd, &spec->mounts[i], err);
        return r;
}
