/* The root file system of a machine's container: shared, or layers.
 *
 * Theory of operation. By default the container's root directory is part of the share, and every
 * file is the host's ("fs"). With "erofs" the guest gets the parts of the overlay that is mounted
 * there and makes an overlay of them itself:
 *
 *   lower  a read-only EROFS image of all the layers, on a disk: root_image.c makes it once and
 *          keeps it. The guest reads it as it reads a disk, and asks the host for no name.
 *   upper  the writable layer as it lies on the host, by a virtio-fs device of its own. What
 *          the container writes is the host's at once, as an overlay has it.
 *
 * Upper and overlayfs's work directory have to be of one mount, so the device serves the directory
 * above both, with nothing in it but these two names. The work directory is ours (AGENT_WORK), for
 * the host's own overlay is still mounted. The file server has no rights for overlayfs's trusted
 * attributes, so the guest's marks are user ones: sys/overlay.h. */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "oci/runtime_spec.h"

/* Annotation of config.json, and of the container's state: fs or erofs. Without it the
 * environment's ISLE_VM_ROOTFS decides. */
#define ROOT_ANNOTATION "isle.vm.rootfs"
/* Where the image of these layers is, or will be, for an engine that knows when they go; the
 * directory exists. Without it /var/cache/isle/layers keeps the image. */
#define ROOT_IMAGE_ANNOTATION "isle.vm.rootfs-image"

/* In the jail. */
#define ROOT_IMAGE "/isle/layers"
#define ROOT_ABOVE "/isle/above"

struct guest_root {
        char *image; /* NULL: shared, and nothing here is set */
        char *above; /* the directory that holds the upper directory */
        char *upper; /* name of that */
        bool read_only, is_volatile;
};
void root_finish(struct guest_root *root);

/* What is chosen: "fs" or "erofs", static. */
int root_choose(const struct oci_spec *spec, const char **ret, struct err *err);
/* Takes the root directory apart; makes the image where there is none. The bundle is the working
 * directory. */
int root_take_apart(const struct oci_spec *spec, struct guest_root *ret, struct err *err);
/* Keeps in the state directory, out of the machine's reach, which layer it writes to. */
int root_note(int state_fd, const struct guest_root *root, struct err *err);
/* The same, of the container `id`: when it is gone, the marks of that layer have to become those
 * that every overlay knows. Heap; NULL: there is none. */
char *root_noted(const char *runtime_root, const char *id);

/* An image of these directories, top first, at `path`, or in the cache where that is NULL: makes it
 * where there is none, or what there is was cut short. Safe against others that do the same and
 * against any end: what has the name is whole. *ret_path is heap text. */
int root_image_ensure(char *const *layers, const char *path, char **ret_path, struct err *err);
