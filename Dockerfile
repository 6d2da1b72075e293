# The image of every node: Ray's own, and with it what constraints.txt pins. One for all machines:
# torch brings its CUDA, and the machine the driver.
#
#   docker build --tag t2ipal .

# Keep the version equal to ray's in constraints.txt. Without CUDA: torch's own is the right one.
FROM rayproject/ray:2.60.0-py311-cpu

# What NVIDIA's images ask of the machine; without a GPU nobody reads it.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# Dependencies first, without the package: after a change of its code only the last layer is new.
COPY --chown=1000:100 constraints.txt pyproject.toml README.md /home/ray/t2ipal/
COPY --chown=1000:100 t2ipal/__init__.py /home/ray/t2ipal/t2ipal/
RUN pip install --no-cache-dir --constraint /home/ray/t2ipal/constraints.txt "/home/ray/t2ipal[serving]"
COPY --chown=1000:100 t2ipal /home/ray/t2ipal/t2ipal
RUN pip install --no-cache-dir --no-deps --force-reinstall /home/ray/t2ipal

# The user of Ray's image, by number: Kubernetes can then see that it is not root.
USER 1000
