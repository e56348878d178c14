# The workbench from the wheel, without a network: `make image` puts the wheel and all that it needs into dist/wheels.
#   docker run --rm --network host apportion
# The workbench listens on 127.0.0.1 only, and prints the address with its token: hence the network of the host.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim
COPY dist/wheels /wheels
RUN python -m pip install --no-index --find-links=/wheels --no-cache-dir 'apportion[app,image,tabular]' && rm -r /wheels
RUN useradd --create-home reader
USER reader
WORKDIR /home/reader
ENTRYPOINT ["apportion"]
CMD ["serve", "--no-browser"]
