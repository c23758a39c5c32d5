#include "guest/root.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/message.h"
#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/overlay.h"

#define NOTE            "layer" /* in the state directory */
#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

void root_finish(struct guest_root *root)
{
        free(root->image);
        free(root->above);
        free(root->upper);
        *root = (struct guest_root){ 0 };
}

int root_choose(const struct oci_spec *spec, const char **ret, struct err *err)
{
        const char *asked = json_map_get(spec->annotations, ROOT_ANNOTATION);
        const char *source = "annotation " ROOT_ANNOTATION;
        if (!asked) {
                asked = getenv("ISLE_VM_ROOTFS");
                source = "the environment's ISLE_VM_ROOTFS";
        }
        if (str_empty(asked) || streq(asked, "fs"))
                *ret = "fs";
        else if (streq(asked, "erofs"))
                *ret = "erofs";
        else
                return err_plain(err, EINVAL, "%s: '%s' is not known; there are fs and erofs",
                                 source, asked);
        return 0;
}

/* The work directory of the guest's overlay; what was in one of a machine before is nobody's. */
static int make_work(const char *above, struct err *err)
{
        auto_fd fd = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open '%s'", above);
        int r = file_remove_tree(fd, AGENT_WORK, err);
        if (r == 0 && mkdirat(fd, AGENT_WORK, 0700) < 0)
                r = err_set(err, errno, "make '%s/" AGENT_WORK "'", above);
        return r;
}

static int take_upper(const struct overlay *overlay, struct guest_root *ret, struct err *err)
{
        struct stat st;
        const char *slash = overlay->upper ? strrchr(overlay->upper, '/') : NULL;
        if (!slash)
                return err_plain(err, EINVAL, "an overlay without an upper directory");
        ret->upper = xstrdup(slash + 1);
        ret->above = xstrndup(overlay->upper, (size_t)(slash - overlay->upper));
        /* They become words of the guest's kernel's command line. */
        if (!*ret->upper || ret->upper[strspn(ret->upper, NAME_CHARACTERS)] || !*ret->above)
                return err_plain(err, EINVAL, "the name of its upper directory '%s'",
                                 overlay->upper);
        if (lstat(overlay->upper, &st) < 0 || !S_ISDIR(st.st_mode))
                return err_plain(err, ENOTDIR, "its upper directory '%s' is none", overlay->upper);
        int r = overlay_share_marks(overlay->upper, err);
        return r == 0 ? make_work(ret->above, err) : r;
}

static int take_apart(const struct oci_spec *spec, struct guest_root *ret, struct err *err)
{
        auto_overlay overlay = { 0 };
        auto_fd fd = open(spec->root->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open");
        ret->read_only = spec->root->readonly;
        int r = overlay_of(fd, &overlay, err);
        if (r < 0)
                return err_advise(err, "with " ROOT_ANNOTATION "=erofs the root is an overlay of "
                                       "directories; use fs for others"),
                       r;
        ret->is_volatile = overlay.is_volatile;
        r = take_upper(&overlay, ret, err);
        if (r == 0)
                r = root_image_ensure(overlay.lower,
                                      json_map_get(spec->annotations, ROOT_IMAGE_ANNOTATION),
                                      &ret->image, err);
        return r;
}

int root_take_apart(const struct oci_spec *spec, struct guest_root *ret, struct err *err)
{
        struct guest_root root = { 0 };
        int r = take_apart(spec, &root, err);
        if (r < 0) {
                root_finish(&root);
                return err_wrap(err, "root file system '%s'", spec->root->path), r;
        }
        *ret = root;
        return 0;
}

int root_note(int state_fd, const struct guest_root *root, struct err *err)
{
        auto_free char *path = xasprintf("%s/%s", root->above, root->upper);
        return file_replace(state_fd, NOTE, path, strlen(path), 0600, false, err);
}

char *root_noted(const char *runtime_root, const char *id)
{
        auto_free char *name = xasprintf("%s/%s/" NOTE, runtime_root, id);
        char *path = NULL;
        return file_read(AT_FDCWD, name, PATH_MAX, &path, NULL, NULL) < 0 ? NULL : path;
}
